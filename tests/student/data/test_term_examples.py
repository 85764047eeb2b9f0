"""`loss.terms[].where`: a term learns from some examples only, and is a mean over their tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from cache.errors import InputError
from cache.examples.example import Example
from student.data.batches import LanguageBatches
from student.data.example_weights import require_learners
from student.data.settings import DataSettings
from student.data.sources import FileSource
from student.losses.normalisation import sum_coefficients, sum_row_weights, term_names
from student.losses.settings import LossSettings
from student.losses.target_forms import TargetForm
from student.losses.weighted_objectives import WeightedObjectives
from student.models.loss_model import LossModel
from student.models.model_parts import layout_of
from student.tokenizers.bpe import learn_tokenizer

ALPHA = 0.3
TERMS = [
    {"objective": "hard_label", "weight": ALPHA, "where": {"task": "predict"}},
    {"objective": "hard_label", "weight": 1 - ALPHA, "where": {"task": "explain"}},
]


def two_tasks() -> list[Example]:
    """Labels of one token, and rationales of many."""
    examples = []
    for number in range(6):
        for task, answer in (
            ("predict", str(number)),
            ("explain", f"because {number} is " + "very " * number + "good"),
        ):
            turns = ({"role": "user", "content": f"{task}: how much is {number}?"},)
            examples.append(Example(f"{task} {number}", turns, response=answer, metadata={"task": task}))
    return examples


TOKENIZER: Any = learn_tokenizer(two_tasks(), 320)


def loss_settings(terms: Sequence[dict[str, Any]] = TERMS) -> LossSettings:
    return LossSettings.model_validate({"terms": list(terms)})


def batches_of(model: Any, loss: LossSettings, examples: Sequence[Example] = ()) -> LanguageBatches:
    source = FileSource(examples or two_tasks(), TOKENIZER, DataSettings(examples=Path("x")), loss)
    return LanguageBatches(source, WeightedObjectives.of(loss, TargetForm("none")), layout_of(model, None))


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    sizes = {"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 1, "num_heads": 2, "dropout_rate": 0.0}
    config = T5Config(vocab_size=len(TOKENIZER), decoder_start_token_id=0, pad_token_id=0, **sizes)
    return T5ForConditionalGeneration(config).eval()


def own_loss(model: Any, batches: LanguageBatches, task: str) -> torch.Tensor:
    """Transformers' loss of the examples of one task: its mean over their tokens."""
    chosen = [i for i in range(len(batches.sizes)) if batches.source.texts(i).metadata["task"] == task]
    inputs = batches.batch(chosen).inputs
    decoded, windows = inputs["decoder_input_ids"], batches.source.read(chosen)
    labels = torch.full(decoded.shape, -100)
    for row, window in enumerate(windows):
        answer = window.tokens[window.segments != 0].astype(np.int64)
        labels[row, : len(answer)] = torch.from_numpy(answer)
    mask, ids = inputs["attention_mask"], inputs["input_ids"]
    loss: torch.Tensor = model(input_ids=ids, attention_mask=mask, decoder_input_ids=decoded, labels=labels).loss
    return loss


@pytest.mark.parametrize("parts", [[range(12)], [[0, 5, 7], [11, 2, 1, 3, 4], [6, 8, 9, 10]]], ids=["one", "three"])
def test_two_tasks_are_weighted_as_in_step_by_step_distillation(model: Any, parts: list[Sequence[int]]) -> None:
    """alpha * label + (1 - alpha) * rationale, each a mean over its own tokens.

    Would catch one mean over the tokens of both tasks, in which long rationales outweigh labels, and a term that learns
    from examples of the other task. However a step is divided into micro-batches, the gradient is the same.
    """
    batches = batches_of(model, loss_settings())
    expected = ALPHA * own_loss(model, batches, "predict") + (1 - ALPHA) * own_loss(model, batches, "explain")
    expected.backward()
    wanted = torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])
    model.zero_grad()
    micro = [batches.batch(list(part)) for part in parts]
    coefficients = sum_coefficients(batches.objectives, sum_row_weights(micro))
    loss_model, total = LossModel(model, batches.objectives), 0.0
    for batch in micro:
        objective = loss_model(batch, coefficients).objective
        objective.backward()
        total += float(objective.detach())
    assert total == pytest.approx(float(expected), rel=1e-5)
    gradient = torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])
    assert torch.allclose(gradient, wanted, atol=2e-6)


def test_terms_are_named_by_their_examples() -> None:
    objectives = WeightedObjectives.of(loss_settings(), TargetForm("none"))
    assert term_names(objectives) == ["hard_label_predict", "hard_label_explain"]


def test_weights_of_examples_and_terms_multiply(model: Any) -> None:
    """Would catch an example that counts in a term of the other task because it has a weight."""
    examples = [
        Example(e.id, e.messages, response=e.response, metadata={**e.metadata, "w": float(i)})
        for i, e in enumerate(two_tasks())
    ]
    loss = LossSettings.model_validate({"terms": TERMS, "example_weight": "w"})
    source = FileSource(examples, TOKENIZER, DataSettings(examples=Path("x")), loss)
    objectives = WeightedObjectives.of(loss, TargetForm("none"))
    batch = LanguageBatches(source, objectives, layout_of(model, None), "w").batch([2, 3])
    assert batch.weights[0].unique().tolist() == [0.0, 2.0] and batch.weights[1].unique().tolist() == [0.0, 3.0]


def test_an_example_of_no_term_has_no_loss(model: Any) -> None:
    batch = batches_of(model, loss_settings(TERMS[:1])).batch(range(12))
    assert batch.without_loss == 6


@pytest.mark.parametrize(
    "where, message",
    [
        ({"tusk": "explain"}, r"loss\.terms\.0\.where: no example has the metadata 'tusk'; there are 'task'"),
        ({"task": "explian"}, r"loss\.terms\.0\.where = \{'task': 'explian'\}: none of the 12 training examples"),
    ],
)
def test_a_term_without_examples_is_refused(model: Any, where: dict[str, str], message: str) -> None:
    """Would catch a misspelt value, with which a term would silently learn nothing."""
    loss = loss_settings([TERMS[0] | {"where": where}, TERMS[1]])
    with pytest.raises(InputError, match=message):
        require_learners(batches_of(model, loss).source, loss.all_terms)
