"""Compact classifiers ignore padding, load as they were saved, and have the documented sizes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForSequenceClassification

from student.classification.texts import pad_texts
from student.models.kinds.compact_classifier import CompactClassifier, CompactConfig

KINDS = ("embedding_bag", "cnn", "transformer", "decomposable_attention")
SEPARATOR = 1
PAD = 2
TEXTS = [np.arange(3, 3 + n, dtype=np.int64) for n in (1, 2, 5, 9)]
TEXTS[2] = np.array([3, 4, SEPARATOR, 5, 6])


def build(kind: str, seed: int = 0, **fields: Any) -> CompactClassifier:
    torch.manual_seed(seed)
    shape = {"vocab_size": 40, "width": 8, "hidden": 6, "max_tokens": 32, "num_labels": 3, "pad_token_id": PAD}
    shape["sep_token_id"] = SEPARATOR
    return CompactClassifier(CompactConfig(kind=kind, **{**shape, **fields})).eval()  # type: ignore[arg-type]


def test_texts_are_padded_on_the_right_and_masked() -> None:
    input_ids, mask = pad_texts([TEXTS[1], TEXTS[0]], PAD)
    assert input_ids.tolist() == [[3, 4], [3, PAD]] and mask.tolist() == [[1, 1], [1, 0]]
    assert input_ids.dtype == mask.dtype == torch.int64
    assert pad_texts([TEXTS[0][:0]], PAD)[1].tolist() == [[0]]


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind: str) -> None:
    """Whatever token pads, on whichever side, and however much."""
    model = build(kind)
    together = model.pooled(*pad_texts(TEXTS, PAD))
    unmasked = []
    for text, state in zip(TEXTS, together, strict=True):
        ids = torch.from_numpy(text)[None]
        alone = model.pooled(ids, torch.ones_like(ids))[0]
        assert torch.allclose(state, alone, atol=1e-6)
        for before, after in ((0, 20), (20, 0), (3, 4)):
            padded = functional.pad(ids, (before, after), value=30)
            mask = functional.pad(torch.ones_like(ids), (before, after))
            assert torch.allclose(model.pooled(padded, mask)[0], alone, atol=1e-6)
            unmasked.append(torch.dist(model.pooled(padded, torch.ones_like(mask))[0], alone))
    assert max(unmasked) > 0.1, "the mask does nothing"


@pytest.mark.parametrize("kind", KINDS)
def test_padding_gets_no_gradient_and_the_text_does(kind: str) -> None:
    model = build(kind)
    input_ids, mask = pad_texts([TEXTS[0], TEXTS[3]], PAD)
    model(input_ids, mask, labels=torch.tensor([0, 2])).loss.backward()
    gradient = model.get_input_embeddings().weight.grad
    assert gradient is not None
    assert not gradient[PAD].any() and gradient[3].any()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_without_tokens_has_finite_logits_and_gradients(kind: str) -> None:
    model = build(kind)
    output = model(*pad_texts([TEXTS[0][:0], TEXTS[2]], PAD), labels=torch.tensor([0, 2]))
    assert output.logits.isfinite().all()
    output.loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("kind", ["cnn", "transformer"])
def test_order_matters_where_it_should(kind: str) -> None:
    texts = [np.array([5, 6, 7, 8]), np.array([8, 5, 7, 6])]
    one, other = build(kind).pooled(*pad_texts(texts, PAD))
    assert not torch.allclose(one, other, atol=1e-3)


def test_a_bag_is_the_mean_of_its_embeddings() -> None:
    model = build("embedding_bag", hidden=0)
    ids, mask = pad_texts([np.array([4, 9]), np.array([4, 9, 9])], PAD)
    weight = model.get_input_embeddings().weight
    expected = torch.stack([(weight[4] + weight[9]) / 2, (weight[4] + 2 * weight[9]) / 3])
    assert torch.allclose(model.pooled(ids, mask), expected)


def test_a_state_of_the_encoder_sees_both_sides() -> None:
    """Causal attention would leave the first token's state alone."""
    model = build("transformer")
    states = []
    model.body.norm.register_forward_hook(lambda module, inputs, output: states.append(output))
    for last in (8, 9):
        ids = torch.tensor([[5, 6, 7, last]])
        model.pooled(ids, torch.ones_like(ids))
    assert not torch.allclose(states[0][0, 0], states[1][0, 0], atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_pooled_states_and_the_head_give_the_logits(kind: str) -> None:
    model = build(kind)
    batch = pad_texts(TEXTS, PAD)
    head = model.get_output_embeddings()
    assert isinstance(head, torch.nn.Linear) and head.out_features == 3
    labels = torch.tensor([0, 1, 2, -100])
    output = model(*batch, labels=labels)
    assert torch.equal(head(model.pooled(*batch)), output.logits)
    by_hand = -output.logits.log_softmax(-1)[torch.arange(3), labels[:3]].mean()
    assert torch.allclose(output.loss, by_hand)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_weights_and_outputs(kind: str) -> None:
    def state(seed: int) -> dict[str, Tensor]:
        return dict(build(kind, seed).state_dict())

    first, again, other = state(1), state(1), state(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["embedding.weight"], other["embedding.weight"])
    model = build(kind).train()
    batch = pad_texts(TEXTS, PAD)
    assert torch.equal(model(*batch).logits, model(*batch).logits), "something is drawn at random in the forward pass"


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_is_what_auto_classes_load(kind: str, tmp_path: Path) -> None:
    names = ("correct", "contradictory", "incorrect", "absent")
    model = build(kind, id2label=dict(enumerate(names)), num_labels=4, kernel_sizes=(1, 2))
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert type(loaded) is CompactClassifier
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.state_dict().items())
    batch = pad_texts(TEXTS, PAD)
    assert torch.equal(loaded(*batch).logits, model(*batch).logits)
    assert loaded.config.id2label == dict(enumerate(names)) and loaded.config.num_labels == 4
    for field in ("kind", "width", "hidden", "heads", "layers", "kernel_sizes", "max_tokens", "pad_token_id"):
        assert getattr(loaded.config, field) == getattr(model.config, field), field


def test_a_head_for_other_classes_is_made_anew(tmp_path: Path) -> None:
    """The rest is kept: loading must not draw again what it has read."""
    model = build("cnn")
    model.save_pretrained(tmp_path)
    heads = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        loaded = AutoModelForSequenceClassification.from_pretrained(
            tmp_path, num_labels=5, ignore_mismatched_sizes=True
        )
        assert torch.equal(loaded.embedding.weight, model.embedding.weight)
        heads.append(loaded.get_output_embeddings().weight)
    assert heads[0].shape == (5, 6) and heads[0].abs().max() <= 6**-0.5
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])


@pytest.mark.parametrize(
    ("fields", "parameters"),
    [
        # embeddings + head
        ({"kind": "embedding_bag", "vocab_size": 320, "width": 3}, 320 * 3 + (3 * 3 + 3)),
        ({"kind": "embedding_bag", "vocab_size": 512, "width": 2}, 512 * 2 + (2 * 3 + 3)),
        # ... + a hidden layer
        (
            {"kind": "embedding_bag", "vocab_size": 512, "width": 48, "hidden": 32},
            24_576 + (48 * 32 + 32) + (32 * 3 + 3),
        ),
        # ... + convolutions of 2, 3 and 4 tokens
        ({"kind": "cnn", "vocab_size": 512, "width": 32}, 512 * 32 + (9 * 32 * 32 + 3 * 32) + (96 * 3 + 3)),
        # ... + positions, two blocks (12 w^2 of weights, 13 w of biases and norms) and the last norm
        (
            {"kind": "transformer", "vocab_size": 512, "width": 32, "max_tokens": 64},
            (512 + 64) * 32 + 2 * (12 * 32 * 32 + 13 * 32) + 2 * 32 + (32 * 3 + 3),
        ),
    ],
)
def test_parameters_are_those_of_the_formula(fields: dict[str, Any], parameters: int) -> None:
    assert CompactClassifier(CompactConfig(num_labels=3, **fields)).num_parameters() == parameters


def test_a_thousand_parameters_learn_to_classify_words() -> None:
    """Initial values of a few dimensions must be of a size that learning starts from."""
    torch.manual_seed(0)
    model = CompactClassifier(CompactConfig(vocab_size=320, width=3, num_labels=3, max_tokens=16))
    assert model.num_parameters() < 1000
    ids = torch.randint(10, 320, (96, 8))
    labels = torch.arange(96) % 3
    ids[:, 4] = labels  # one token of eight tells the class
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        model(ids, torch.ones_like(ids), labels=labels).loss.backward()
        optimizer.step()
    predicted = model(ids, torch.ones_like(ids)).logits.argmax(-1)
    assert (predicted == labels).float().mean() > 0.95


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "lstm"}, "choose one of embedding_bag, cnn, transformer"),
        ({"width": 0}, "width = 0"),
        ({"hidden": -1}, "hidden"),
        ({"kind": "transformer", "width": 6, "heads": 4}, "multiple of heads = 4"),
        ({"kind": "cnn", "kernel_sizes": ()}, "kernel_sizes"),
    ],
)
def test_impossible_shapes_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CompactConfig(**fields)


def test_longer_texts_than_the_model_has_positions_for_are_refused() -> None:
    with pytest.raises(ValueError, match="33 tokens are more than max_tokens = 32"):
        build("transformer").pooled(torch.zeros(1, 33, dtype=torch.int64), torch.ones(1, 33))


def test_the_last_segment_is_compared_with_the_texts_before_it() -> None:
    """By hand: attention over the other side alone, one comparison for both sides, the maximum over each."""
    model = build("decomposable_attention", hidden=0)
    question, reference, answer = [5, 6], [7], [8, 9]
    ids = torch.tensor([[*question, SEPARATOR, *reference, SEPARATOR, *answer]])
    weight, body = model.get_input_embeddings().weight, model.body
    sides = weight[question + reference], weight[answer]
    states = []
    for own, other in (sides, sides[::-1]):
        attention = (own @ other.T / own.shape[1] ** 0.5).softmax(-1)
        aligned = attention @ other
        states.append(torch.relu(body.compare(torch.cat([own, aligned, own * aligned], -1))).amax(0))
    assert torch.allclose(model.pooled(ids, torch.ones_like(ids))[0], torch.cat(states), atol=1e-6)


def test_the_side_of_a_word_matters_and_a_text_without_a_separator_is_an_answer() -> None:
    model = build("decomposable_attention")

    def state(*ids: int) -> Tensor:
        tokens = torch.tensor([ids])
        return model.pooled(tokens, torch.ones_like(tokens))[0]

    assert not torch.allclose(state(5, 6, SEPARATOR, 7), state(5, SEPARATOR, 6, 7), atol=1e-3)
    assert torch.allclose(state(5, 6), state(SEPARATOR, 5, 6), atol=1e-6)
    with pytest.raises(ValueError, match="a tokenizer with a separator"):
        build("decomposable_attention", sep_token_id=None)


def test_the_net_of_the_science_demo_has_0_03_million_parameters() -> None:
    shape = {"vocab_size": 600, "width": 32, "hidden": 40, "num_labels": 5}
    assert build("decomposable_attention", **shape).num_parameters() == 26_525
