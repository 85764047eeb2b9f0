"""Rows, labels, weights and padding of a batch are at the right positions, packed or not, for both kinds of model."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from cache.errors import InputError
from cache.examples.example import Example, Segment
from cache.rows.record import Record, Window
from cache.rows.sparse_targets import concatenate, empty_targets
from cache.rows.spec import TargetSpec
from student.data.batches import LanguageBatches
from student.data.collate import collate, row_weights
from student.data.example_weights import example_weight
from student.losses.batch import Batch
from student.losses.normalisation import objective_weights, sum_coefficients, sum_row_weights
from student.losses.settings import LossSettings
from student.losses.target_forms import TargetForm
from student.losses.weighted_objectives import WeightedObjectives
from student.models.kinds.causal import PackedLayout
from student.models.kinds.encoder_decoder import EncoderDecoderLayout
from student.models.loss_model import LossModel
from student.models.rows.layout import PADDED
from tests.cache.rows.rows import VOCAB, log_softmax, sparse
from tests.student.losses.dense import coarse, dense_loss
from tests.student.training.ranks import LLAMA, THRESHOLD, make_record

SPEC = TargetSpec("topk", 16, entropy=True, temperatures=(2.0, 4.0))
FORM = TargetForm.of(SPEC)
SIZES = [(4, 6), (7, 3), (3, 9), (5, 4)]
T5 = {"model_type": "t5", "d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2}


def records(sizes: Sequence[tuple[int, int]] = SIZES, spec: TargetSpec = SPEC, seed: int = 0) -> list[Record]:
    rng = np.random.default_rng(seed)
    return [make_record(rng, str(i), *size, spec) for i, size in enumerate(sizes)]


def windows(sizes: Sequence[tuple[int, int]] = SIZES, spec: TargetSpec = SPEC) -> list[Window]:
    return [record.window for record in records(sizes, spec)]


def objectives_of(form: TargetForm = FORM, **loss: Any) -> WeightedObjectives:
    return WeightedObjectives.of(LossSettings.model_validate(loss), form)


def model_of(fields: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    kind = AutoModelForSeq2SeqLM if fields["model_type"] == "t5" else AutoModelForCausalLM
    config = AutoConfig.for_model(**{"vocab_size": VOCAB, "decoder_start_token_id": 0, "dropout_rate": 0.0, **fields})
    return kind.from_config(config, dtype=torch.float32).eval()


def loss_and_gradient(
    model: Any, objectives: WeightedObjectives, batches: Sequence[Batch]
) -> tuple[float, torch.Tensor]:
    """Of one step of these micro-batches: the objective, and the gradient of all weights."""
    model.zero_grad()
    factors = sum_coefficients(objectives, sum_row_weights(batches))
    loss_model, total = LossModel(model, objectives), 0.0
    for batch in batches:
        objective = loss_model(batch, factors).objective
        objective.backward()
        total += float(objective.detach())
    return total, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def direct(objectives: WeightedObjectives, window: Window, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums of the terms and of their weights, from logits of all tokens of one example and its targets as stored."""
    sums, counts = torch.zeros(2, len(objectives.terms), dtype=torch.float64)
    logits = logits.double()
    for j in range(len(window) - 1):
        target = window.targets.rows(j, j + 1)
        for number, term in enumerate(objectives.terms):
            weight = float(objectives.segment_weights[number, window.segments[j + 1]])
            temperature = term.temperature
            log_q = (logits[j] / temperature).log_softmax(-1)[None]
            if term.objective == "hard_label":
                loss = -log_q[:, int(window.tokens[j + 1])]
            elif not len(target.ids):
                continue
            else:
                ids = torch.from_numpy(target.ids.astype(np.int64))[None]
                log_p = torch.from_numpy(target.logprobs.astype(np.float64))
                if temperature != 1:
                    assert target.log_normalizers is not None
                    column = objectives.form.temperatures.index(temperature)
                    log_p = log_p / temperature - float(target.log_normalizers[0, column])
                log_p = torch.cat([log_p, (1 - log_p.exp().sum()).log()[None]])[None]
                loss = dense_loss(term.objective, term.parameter or 0.0, log_p, coarse(log_q, ids))
            sums[number] += weight * loss[0]
            counts[number] += weight
    return sums, counts


def test_a_row_is_the_distribution_of_the_next_token() -> None:
    """Row j of a target goes with the hidden state of token j and the label j + 1. Would catch any shift by one."""
    read = windows()
    batch = collate(read, objectives_of())
    assert batch.inputs["input_ids"].shape == (4, 12)
    flat, row = batch.inputs["input_ids"].flatten(), 0
    for b, (window, (prompt, response)) in enumerate(zip(read, SIZES, strict=True)):
        assert flat[b * 12 : b * 12 + len(window)].tolist() == window.tokens.tolist()
        for j in range(prompt - 1, prompt + response - 1):
            target = window.targets.rows(j, j + 1)
            assert batch.rows[row] == b * 12 + j
            assert batch.labels[row] == window.tokens[j + 1]
            assert batch.ids[row].tolist() == target.ids.tolist()
            assert np.array_equal(batch.log_p[0][row].numpy(), target.logprobs)
            assert batch.log_tail[0][row] == target.log_tail[0]
            row += 1
    assert len(batch.rows) == row and batch.weights.tolist() == [[1.0] * row]


@pytest.mark.parametrize("shift", [-1, 0, 1])
def test_a_shift_of_the_targets_by_one_changes_the_loss(shift: int) -> None:
    """A teacher that is the student itself costs nothing: unless its rows are those of the token before or after."""
    model = model_of({**LLAMA, "initializer_range": 0.3})
    (record,) = records([(4, 20)])
    tokens = torch.from_numpy(record.tokenized.tokens.astype(np.int64))
    with torch.no_grad():
        log_p = model(tokens[None]).logits[0].double().log_softmax(-1).numpy()
    said = sparse(np.random.default_rng(0), log_p, SPEC).rows(2, 24)
    placed = concatenate([empty_targets(2 + shift), said, empty_targets(1)])
    placed = concatenate([placed, empty_targets(1)]).rows(0, 24)
    window = replace(record.window, targets=placed)
    objectives = objectives_of(terms=[{"objective": "forward_kl"}, {"objective": "jsd", "temperature": 2.0}])
    loss, _ = loss_and_gradient(model, objectives, [collate([window], objectives)])
    assert loss == pytest.approx(0, abs=1e-4) if shift == 0 else loss > 0.3


def test_shorter_rows_are_padded_with_nothing() -> None:
    (window,) = windows([(4, 6)])
    rng = np.random.default_rng(0)
    three, seven = (
        sparse(rng, log_softmax(rng.normal(size=(n, VOCAB))), TargetSpec("topk", k)) for n, k in ((2, 3), (4, 7))
    )
    uneven = concatenate([empty_targets(3), three, seven, empty_targets(1)])
    batch = collate([replace(window, targets=uneven)], objectives_of())
    assert torch.isfinite(batch.log_p[0]).sum(-1).tolist() == [3, 3, 7, 7, 7, 7]


def test_each_term_weighs_segments_in_its_own_way() -> None:
    """Would catch weights of the segment of token j, of another term, and rows of weight 0 that are computed."""
    whole = {"prompt": 0.0, "rationale": 0.5, "label": 2.0, "response": 1.0}
    own = {"prompt": 0.25, "rationale": 0.0, "label": 0.0, "response": 3.0}
    objectives = objectives_of(
        segments=whole, terms=[{"objective": "forward_kl"}, {"objective": "hard_label", "segments": own}]
    )
    (window,) = windows([(3, 5)])
    assert window.segments.tolist() == [0, 0, 0, 1, 2, 3, 3, 3]
    expected = [[0, 0, 0.5, 2, 1, 1, 1], [0.25, 0.25, 0, 0, 3, 3, 3]]
    assert row_weights(window, objectives).tolist() == expected
    assert collate([window], objectives).rows.tolist() == [0, 1, 2, 3, 4, 5, 6]
    only = objectives_of(segments={**whole, "label": 0.0})
    batch = collate([window], only)
    assert batch.rows.tolist() == [2, 4, 5, 6] and batch.labels.tolist() == window.tokens[[3, 5, 6, 7]].tolist()


def test_hard_labels_need_no_targets() -> None:
    """Rows of prompts have no teacher: would catch a distillation term that counts them, or a NaN that they bring."""
    terms = [
        {"objective": "forward_kl", "temperature": 2.0},
        {"objective": "hard_label", "segments": {"prompt": 1.0}},
    ]
    objectives, read = objectives_of(terms=terms), windows()
    batch = collate(read, objectives)
    tokens = sum(map(len, read))
    assert len(batch.rows) == tokens - len(read)
    assert sum_row_weights([batch]).tolist() == [22.0, tokens - len(read)]
    loss, gradient = loss_and_gradient(model_of(LLAMA), objectives, [batch])
    assert np.isfinite(loss) and bool(gradient.isfinite().all())
    texts = [replace(window, targets=empty_targets(len(window))) for window in read]
    alone = collate(texts, objectives_of(TargetForm("none"), objective="hard_label"))
    assert alone.ids.shape == (22, 0) and alone.log_p == ()


def test_an_average_over_examples_gives_each_the_same_weight() -> None:
    """Would catch weights that are not divided by the example's own tokens."""
    objectives = objectives_of(average="examples")
    batch = collate(windows(), objectives)
    owner = torch.cat([torch.full((response,), i) for i, (_, response) in enumerate(SIZES)])
    sums = torch.zeros(4).index_add(0, owner, batch.weights[0])
    assert torch.allclose(sums, torch.ones(4))
    assert sum_row_weights([batch]).tolist() == pytest.approx([4.0])


def test_weights_of_examples_multiply() -> None:
    """And an example that weighs 0 is not computed at all; would catch a weight that goes to another example."""
    batch = collate(windows(), objectives_of(), example_weights=np.array([[1.0], [0.0], [2.5], [1.0]], np.float32))
    assert batch.weights[0].tolist() == [1.0] * 6 + [2.5] * 9 + [1.0] * 4
    nothing = collate(windows(), objectives_of(), example_weights=np.zeros((4, 1), np.float32))
    assert len(nothing.rows) == 0 and nothing.without_loss == 4 and batch.without_loss == 1
    loss, gradient = loss_and_gradient(model_of(LLAMA), objectives_of(), [nothing])
    assert loss == 0 and not gradient.any()


@pytest.mark.parametrize("fields", [LLAMA, T5], ids=["llama", "t5"])
@pytest.mark.parametrize("pack_to", [None, 40])
def test_a_micro_batch_without_examples_has_no_loss_and_no_gradient(
    fields: dict[str, Any], pack_to: int | None
) -> None:
    """Would catch a layout that cannot arrange nothing, and a stand-in that is learned or has no graph."""
    model, objectives = model_of(fields), objectives_of(terms=MIX)
    layout = PADDED if pack_to is None else PackedLayout(pack_to)
    layout = EncoderDecoderLayout() if model.config.is_encoder_decoder else layout
    source: Any = Source([len(window) for window in windows()])
    source.read = lambda examples: [windows()[i] for i in examples]
    batch = LanguageBatches(source, objectives, layout).batch([])
    assert batch.weights.shape == (len(MIX), 0) and batch.positions > 0
    loss, gradient = loss_and_gradient(model, objectives, [batch])
    assert loss == 0 and len(gradient) and not gradient.any()


@pytest.mark.parametrize("value", [None, -1, True, "2", float("nan"), float("inf")])
def test_a_missing_weight_is_reported(value: Any) -> None:
    example = Example("e7", ({"role": "user", "content": "x"},), metadata={} if value is None else {"w": value})
    with pytest.raises(InputError, match=r"example e7: metadata 'w' is .*not a weight of 0 or more"):
        example_weight(example, "w")
    assert example_weight(replace(example, metadata={"w": 3}), "w") == 3.0


MIX = [
    {"objective": "forward_kl", "temperature": 2.0, "weight": 0.5},
    {"objective": "reverse_kl", "temperature": 4.0, "segments": {"rationale": 0.5, "label": 0.0}},
    {"objective": "jsd", "beta": 0.2},
    {"objective": "hard_label", "weight": 0.3},
]


@pytest.mark.parametrize("fields", [LLAMA, T5], ids=["llama", "t5"])
def test_the_loss_is_that_of_the_models_own_logits(fields: dict[str, Any]) -> None:
    """Prompts read by an encoder, or at the start of the row. Would catch a decoder's input that is not shifted."""
    model, objectives, read = model_of(fields), objectives_of(terms=MIX), windows()
    layout = EncoderDecoderLayout() if model.config.is_encoder_decoder else PADDED
    found, _ = loss_and_gradient(model, objectives, [collate(read, objectives, layout)])
    sums, counts = torch.zeros(2, len(MIX), dtype=torch.float64)
    for window, (prompt, _) in zip(read, SIZES, strict=True):
        tokens = torch.from_numpy(window.tokens.astype(np.int64))[None]
        with torch.no_grad():
            if model.config.is_encoder_decoder:
                written = model(input_ids=tokens[:, :prompt], labels=tokens[:, prompt:]).logits[0]
                logits = torch.cat([torch.zeros(prompt - 1, VOCAB), written, torch.zeros(1, VOCAB)])
            else:
                logits = model(tokens).logits[0]
        own = direct(objectives, window, logits)
        sums, counts = sums + own[0], counts + own[1]
    wanted = float((sums / counts * objective_weights(objectives)).sum())
    assert found == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("fields", [LLAMA, T5], ids=["llama", "t5"])
def test_any_split_into_micro_batches_is_the_same_sum(fields: dict[str, Any]) -> None:
    """Would catch padding that is seen, an encoder without a mask, and a mean of means."""
    model, objectives, read = model_of(fields), objectives_of(terms=MIX), windows()
    layout = EncoderDecoderLayout() if model.config.is_encoder_decoder else PADDED
    loss, gradient = loss_and_gradient(model, objectives, [collate(read, objectives, layout)])
    for split in ([1, 1, 1, 1], [3, 1], [1, 3]):
        bounds = np.cumsum([0, *split])
        parts = [read[a:b] for a, b in itertools.pairwise(bounds)]
        batches = [collate(part, objectives, layout) for part in parts]
        again, same = loss_and_gradient(model, objectives, batches)
        assert again == pytest.approx(loss, rel=1e-6)
        assert (same - gradient).norm() < 1e-5 * gradient.norm()


@pytest.mark.parametrize("pack_to", [12, 25, 64])
def test_packing_changes_nothing(pack_to: int) -> None:
    """Several examples a row. Would catch rows that are looked up where the example would lie alone, and leaks."""
    model, objectives, read = model_of(LLAMA), objectives_of(terms=MIX), windows()
    loss, gradient = loss_and_gradient(model, objectives, [collate(read, objectives)])
    packed = collate(read, objectives, PackedLayout(pack_to))
    rows, width = packed.inputs["input_ids"].shape
    assert (rows, width) == {12: (4, 12), 25: (2, 21), 64: (1, 41)}[pack_to], "rows are as long as the fullest one"
    again, same = loss_and_gradient(model, objectives, [packed])
    assert again == pytest.approx(loss, rel=1e-6)
    assert (same - gradient).norm() < 1e-5 * gradient.norm()
    assert packed.labels.tolist() == collate(read, objectives).labels.tolist()


def test_estimates_come_with_their_entropies() -> None:
    objectives = objectives_of(TargetForm.of(THRESHOLD))
    read = windows(spec=THRESHOLD)
    batch = collate(read, objectives)
    wanted = np.concatenate([w.targets.entropy[w.targets.counts > 0] for w in read if w.targets.entropy is not None])
    assert np.array_equal(batch.entropy.numpy(), wanted)
    loss, gradient = loss_and_gradient(model_of(LLAMA), objectives, [batch])
    assert np.isfinite(loss) and bool(gradient.isfinite().all())


class Source:
    """Examples of given sizes, without content."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.tokens, self.left_out, self.form = np.array(sizes), 0, FORM


def test_an_encoder_decoder_cannot_learn_prompts() -> None:
    objectives = objectives_of(objective="hard_label", segments={"prompt": 1.0})
    with pytest.raises(InputError, match=r"loss\.segments\.prompt: an encoder-decoder reads prompts"):
        LanguageBatches(Source([3]), objectives, EncoderDecoderLayout())  # type: ignore[arg-type]
    assert Segment.PROMPT == 0
