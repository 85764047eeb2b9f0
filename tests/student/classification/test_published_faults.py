"""What a published notebook of this distillation got wrong, a test each: soft labels, temperature, rows, tokenizer."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cache.examples.example import Example
from cache.examples.files.jsonl import write_examples
from student.classification.batches import CLASS_TARGETS, ClassBatches
from student.classification.source import ClassSource
from student.losses.normalisation import sum_coefficients, sum_row_weights
from student.losses.settings import LossSettings
from student.losses.weighted_objectives import WeightedObjectives
from student.models.kinds.compact_classifier import CompactClassifier, CompactConfig
from student.models.loss_model import LossModel
from student.training.planning.stores import OpenStores
from student.training.planning.vocabulary import choose_vocabulary
from student.training.settings import TrainSettings
from tests.student.classification.judge_teacher import AT_LABEL, STUDENT, TEACHER, TOPK, open_store, teacher_record

COUNT = 12


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ClassSource:
    words = ["correct", "wrong", "partly"]
    records = [teacher_record(f"Answer: {words[i % 3]}", i, i, TOPK)[0] for i in range(COUNT)]
    store = open_store(tmp_path_factory.mktemp("faults"), records, TOPK)
    return ClassSource.from_store(store, AT_LABEL, TEACHER, STUDENT)


def batches(source: ClassSource, **loss: float) -> ClassBatches:
    return ClassBatches(source, WeightedObjectives.of(LossSettings(**loss), CLASS_TARGETS))  # type: ignore[arg-type]


def test_soft_labels_are_probabilities_and_belong_to_their_texts_in_any_order(source: ClassSource) -> None:
    """Would catch one-hot rows, and rows that stay in place while the texts are shuffled."""
    assert source.teacher is not None
    order = np.random.default_rng(0).permutation(COUNT)
    batch = batches(source).batch(order)
    numbers = {example.id: row for example, row in zip(source.examples, source.teacher.log_probs, strict=True)}
    for i, row, ids, mask in zip(
        order, batch.log_p[0], batch.inputs["input_ids"], batch.inputs["attention_mask"], strict=True
    ):
        number = source.examples[i].id
        assert np.allclose(row, numbers[number], atol=1e-6)
        assert STUDENT.decode(ids[mask.bool()]).strip() == f"ice {number[1:]}"
        assert 0 < np.exp(row.numpy()).max() < 1
    assert len({tuple(row.tolist()) for row in batch.log_p[0]}) == COUNT


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_temperature_of_classes(source: ClassSource, temperature: float) -> None:
    """T^2 KL(softmax(log p / T) || softmax(z / T)), a mean over texts, worked out apart from the project's losses."""
    torch.manual_seed(0)
    model = CompactClassifier(CompactConfig(vocab_size=len(STUDENT), width=8, num_labels=3))
    made = batches(source, temperature=temperature)
    batch = made.batch(range(COUNT))
    coefficients = sum_coefficients(made.objectives, sum_row_weights([batch]))
    loss = LossModel(model, made.objectives)(batch, coefficients).objective
    assert source.teacher is not None
    log_p = torch.from_numpy(source.teacher.log_probs).double() / temperature
    log_p -= log_p.logsumexp(1, keepdim=True)
    log_q = (model(**batch.inputs).logits.double() / temperature).log_softmax(1)
    expected = temperature**2 * (log_p.exp() * (log_p - log_q)).sum(1).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("algorithm", ["byte_bpe", "wordpiece"])
def test_a_tokenizer_is_never_learned_from_another_split(tmp_path: Path, algorithm: str) -> None:
    """Held-out texts have a word that training texts lack: it must be unknown, or in pieces."""
    for name, word in (("train", "lukewarm"), ("dev", "zyzzyva")):
        texts = [Example(str(i), ({"role": "user", "content": f"{word} {word}"},), label="yes") for i in range(30)]
        write_examples(tmp_path / f"{name}.jsonl", texts)
    settings = TrainSettings.model_validate(
        {
            "output": tmp_path / "run",
            "data": {"examples": tmp_path / "train.jsonl"},
            "heldout": {"examples": tmp_path / "dev.jsonl"},
            "tokenizer": {"vocab_size": 320, "algorithm": algorithm},
            "classes": {"labels": ["yes", "no"]},
            "model": {"config": {"model_type": "logitbank_compact"}},
            "loss": {"objective": "hard_label"},
            "optimizer": {"lr": 0.1},
            "run": {"steps": 1},
        }
    )
    tokenizer = choose_vocabulary(settings, OpenStores(), tmp_path / "plan").tokenizer
    assert len(tokenizer("lukewarm")["input_ids"]) == 1
    assert not any("zy" in token.lower() for token in tokenizer.get_vocab())
    assert (tmp_path / "plan" / "tokenizer" / "tokenizer.json").is_file(), "the one that is saved with the model"


def test_one_capture_serves_a_coarser_scale(tmp_path: Path) -> None:
    """Classes of several words have the summed probability of these words, and their labels. By hand from three."""
    records = [teacher_record(f"Answer: {word}", i, i, TOPK)[0] for i, word in enumerate(["correct", "wrong"] * 3)]
    store = open_store(tmp_path, records, TOPK)
    fine = ClassSource.from_store(store, AT_LABEL, TEACHER, STUDENT)
    labels = AT_LABEL.labels
    settings = AT_LABEL.model_copy(
        update={"labels": {"no": labels["wrong"] + labels["partly"], "yes": labels["correct"]}}
    )
    coarse = ClassSource.from_store(store, settings, TEACHER, STUDENT)
    assert fine.teacher is not None and coarse.teacher is not None
    p = np.exp(fine.teacher.log_probs)
    assert np.allclose(np.exp(coarse.teacher.log_probs), np.stack([p[:, 1] + p[:, 2], p[:, 0]], 1), atol=1e-5)
    assert (coarse.labels == (fine.labels == 0)).all() and len(coarse) == len(fine) == 6
