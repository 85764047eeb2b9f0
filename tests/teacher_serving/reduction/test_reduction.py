"""Both reductions agree with dense float64 for any logits, and refuse logits that are no distribution."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from cache.rows.spec import TargetSpec
from teacher_serving.reduction.reducer import TORCH_BYTES_PER_LOGIT, Reducer, ReductionError, select_rows
from teacher_serving.reduction.rows import Rows, concatenate_rows
from teacher_serving.reduction.triton_backend import PackedBlock
from tests.teacher_serving.reduction.dense import (
    VOCABULARIES,
    WAYS,
    check_rows,
    close,
    dense,
    drawn,
    head_sizes,
    random_logits,
    reduced,
)

TARGETS = {
    "topk": TargetSpec(k=16, entropy=True, temperatures=(0.5, 2.0, 30.0)),
    "topk 1": TargetSpec(k=1),
    "topk, more than there are": TargetSpec(k=6000),
    "nucleus": TargetSpec("nucleus", k=64, mass=0.9, entropy=True),
    "nucleus cut by k": TargetSpec("nucleus", k=2, mass=0.99),
    "threshold": TargetSpec("threshold", threshold=0.02, temperatures=(3.0,)),
    "threshold of a half": TargetSpec("threshold", threshold=0.5),
    "sampled": TargetSpec("sampled", draws=50, entropy=True, temperatures=(0.7,)),
}
SCALES = {
    "flat": (1e-3, 0.0),
    "sharp": (100.0, 0.0),
    "high": (1.0, 1e4),
    "low": (1.0, -1e4),
    "sharp and low": (100.0, -1e4),
}
CPU = torch.device("cpu")
EACH_WAY = pytest.mark.parametrize("way", WAYS)
EACH_MODE = pytest.mark.parametrize("name", list(TARGETS))
NAN, MINUS_NAN = np.array([0x7FC00000, 0xFFC00000], np.uint32).view(np.float32)


@EACH_WAY
@EACH_MODE
@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_rows_are_those_of_dense_arithmetic(way: str, name: str, vocabulary: int) -> None:
    targets = TARGETS[name]
    logits = random_logits(20, vocabulary)
    following = np.append(np.random.default_rng(0).integers(0, vocabulary, 19), -1)
    rows = reduced(way, logits, targets, following)
    log_p = dense(logits)
    check_rows(rows, log_p, targets)
    assert close(rows.token_logprobs[:-1], log_p[np.arange(19), following[:-1]])
    assert np.isnan(rows.token_logprobs[-1])


@EACH_WAY
@EACH_MODE
@pytest.mark.parametrize("scale", list(SCALES))
def test_scales_and_offsets_cost_no_accuracy(way: str, name: str, scale: str) -> None:
    spread, offset = SCALES[scale]
    logits = random_logits(12, 1000, seed=1) * spread + offset
    following = logits.argmax(-1).numpy()
    rows = reduced(way, logits, TARGETS[name], following)
    check_rows(rows, dense(logits), TARGETS[name])
    assert close(rows.token_logprobs, dense(logits).max(axis=1))


@EACH_WAY
@EACH_MODE
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("vocabulary", [65, 300])
def test_padding_dtype_and_layout_change_nothing(way: str, name: str, dtype: torch.dtype, vocabulary: int) -> None:
    """Padding of an engine beyond the vocabulary holds the largest logits, and would win if it were looked at."""
    wide = random_logits(17, 320).to(dtype)
    wide[:, vocabulary:] = 1000.0
    plain = wide[:, :vocabulary].float().clone()
    truth = reduced(way, plain, TARGETS[name])
    check_rows(truth, dense(plain), TARGETS[name])
    turned = wide.T.contiguous().T
    assert turned.stride(1) != 1
    for given in (wide, turned, wide[:, :vocabulary], turned[:, :vocabulary]):
        rows = reduced(way, given, TARGETS[name], vocabulary=vocabulary)
        assert np.array_equal(rows.targets.ids, truth.targets.ids)
        assert np.array_equal(rows.targets.offsets, truth.targets.offsets)
        # Torch sums in another order where the layout is another.
        assert close(rows.targets.logprobs, truth.targets.logprobs.astype(np.float64))
        assert close(rows.targets.log_tail, truth.targets.log_tail.astype(np.float64))


@EACH_MODE
def test_threads_change_nothing(name: str) -> None:
    logits = random_logits(50, 1000)
    logits[13] = math.nan
    following = np.arange(50)
    one, three = (reduced("loops", logits, TARGETS[name], following, threads=threads) for threads in (1, 3))
    for field in ("offsets", "ids", "logprobs", "log_tail", "exact", "entropy", "log_normalizers"):
        ours, theirs = getattr(one.targets, field), getattr(three.targets, field)
        assert (ours is None) == (theirs is None)
        assert ours is None or np.array_equal(ours, theirs, equal_nan=ours.dtype.kind == "f")
    assert np.array_equal(one.token_logprobs, three.token_logprobs, equal_nan=True)


@EACH_WAY
def test_of_equal_logits_the_smaller_id_comes_first(way: str) -> None:
    logits = random_logits(6, 300).round() + 0.0  # few values, nearly all ties; -0.0 is none
    order = np.argsort(-logits.numpy(), axis=1, kind="stable")
    for k in (1, 5, 64, 65, 299, 300):
        rows = reduced(way, logits, TargetSpec(k=k))
        assert np.array_equal(rows.targets.ids.reshape(6, k), order[:, :k])
        check_rows(rows, dense(logits), TargetSpec(k=k))
    level = torch.zeros(1, 200)
    assert reduced(way, level, TargetSpec(k=20)).targets.ids.tolist() == list(range(20))


@EACH_WAY
@EACH_MODE
@pytest.mark.parametrize("left", [1, 2, 40])
def test_ids_that_the_model_rules_out_never_appear(way: str, name: str, left: int) -> None:
    """Of 200 ids, `left` are finite; whole chunks are not."""
    rng = np.random.default_rng(left)
    logits = torch.full((15, 200), -math.inf)
    for i in range(15):
        places = rng.choice(200, left, replace=False)
        logits[i, places] = torch.from_numpy(rng.normal(size=left)).float()
    rows = reduced(way, logits, TARGETS[name], np.zeros(15, np.int64))
    check_rows(rows, dense(logits), TARGETS[name])
    assert (rows.targets.counts <= left).all()
    ruled_out = np.isneginf(logits[:, 0].numpy())
    assert ruled_out.any() and np.isneginf(rows.token_logprobs[ruled_out]).all()


@EACH_WAY
@EACH_MODE
@pytest.mark.parametrize("vocabulary", [3, 64, 65, 200])
@pytest.mark.parametrize("value", [NAN, MINUS_NAN, math.inf])
def test_a_row_without_a_distribution_is_empty_and_its_neighbours_are_not(
    way: str, name: str, vocabulary: int, value: float
) -> None:
    logits = random_logits(8, vocabulary).numpy()
    truth = dense(torch.from_numpy(logits))
    logits[1] = value
    logits[3, 0] = value
    logits[4, -1] = value
    logits[5, : vocabulary // 2] = -math.inf
    logits[5, 1] = value
    logits[6] = -math.inf
    rows = reduced(way, torch.from_numpy(logits), TARGETS[name], np.full(8, 2))
    good = np.array([0, 2, 7])
    assert np.flatnonzero(rows.targets.counts).tolist() == good.tolist()
    assert np.flatnonzero(~np.isnan(rows.token_logprobs)).tolist() == good.tolist()
    rows.targets.validate(vocabulary, "rows")
    assert close(rows.token_logprobs[good], truth[good, 2])
    if rows.targets.entropy is not None:
        assert np.isfinite(rows.targets.entropy[good]).all()


@EACH_WAY
@pytest.mark.parametrize("value", [NAN, MINUS_NAN])
def test_a_nan_among_ids_that_are_ruled_out_is_seen(way: str, value: float) -> None:
    logits = random_logits(1, 200).numpy()
    logits[0, 64:128] = -math.inf
    logits[0, 100] = value
    assert reduced(way, torch.from_numpy(logits), TargetSpec(k=4)).targets.counts.tolist() == [0]


@EACH_WAY
@pytest.mark.parametrize("rest", [1e-3, 1e-6, 1e-9])
def test_a_small_tail_keeps_its_digits(way: str, rest: float) -> None:
    """1 - (sum of the head) would lose them."""
    rng = np.random.default_rng(0)
    head, tail = rng.dirichlet(np.ones(16), 10) * (1 - rest), rng.dirichlet(np.ones(984), 10) * rest
    logits = torch.from_numpy(np.log(np.concatenate([tail[:, :500], head, tail[:, 500:]], axis=1))).float()
    largest = reduced(way, logits, TargetSpec(k=16)).targets
    assert np.abs(np.exp(largest.log_tail.astype(np.float64)) / rest - 1).max() < 1e-4
    exact = reduced(way, logits, TargetSpec("threshold", threshold=1e-5)).targets
    sizes = head_sizes(dense(logits), TargetSpec("threshold", threshold=1e-5), 0.0)
    left = np.exp(np.sort(dense(logits), axis=1))
    truth = [left[i, : 1000 - n].sum() for i, n in enumerate(sizes)]
    assert np.abs(np.exp(exact.log_tail.astype(np.float64)) / truth - 1).max() < 1e-4


@pytest.mark.parametrize("mode", ["topk", "threshold", "sampled"])
def test_hidden_states_are_reduced_within_the_memory(mode: str) -> None:
    logits = random_logits(300, 5000)
    targets = TARGETS[mode]
    numbers, following = drawn(targets, 300), np.arange(300)
    hidden = torch.arange(300.0)[:, None]
    truth = Reducer(targets, 5000).reduce(logits, following, numbers)
    for memory_mib in (1, 2, 4, 512):
        asked: list[int] = []

        def to_logits(some: torch.Tensor, asked: list[int] = asked) -> torch.Tensor:
            asked.append(len(some))
            return logits[some[:, 0].long()]

        reducer = Reducer(targets, 5000, memory_mib=memory_mib)
        most = reducer.block_rows(hidden.element_size(), CPU)
        assert most == 1 or most * 5000 * 4 <= memory_mib << 20
        rows = reducer.start_hidden(hidden, to_logits, following, numbers)()
        assert max(asked) <= most and sum(asked) == 300
        assert memory_mib > 2 or len(asked) > 2
        assert np.array_equal(rows.targets.ids, truth.targets.ids)
        assert np.array_equal(rows.targets.logprobs, truth.targets.logprobs)
        assert np.array_equal(rows.targets.log_tail, truth.targets.log_tail)
        assert np.array_equal(rows.token_logprobs, truth.token_logprobs)


def test_the_smallest_memory_still_takes_a_row() -> None:
    assert Reducer(TargetSpec(k=4), 10_000_000, memory_mib=16).block_rows(4, CPU) == 1
    assert Reducer(TargetSpec(k=4), 10_000_000, memory_mib=16).block_rows(2, torch.device("cuda")) == 1


def test_rows_keep_no_block_of_page_locked_memory() -> None:
    """Views of what a kernel wrote would keep the whole of it."""
    targets = TargetSpec("topk", k=4, entropy=True, temperatures=(2.0,))
    packed = np.zeros((6, 2 * 4 + 5 + 1), np.int32)
    packed[:, 8:10] = 4
    rows = Reducer(targets, 100).rows_from_arrays(PackedBlock(torch.zeros(0), 4).arrays(packed))
    rows = concatenate_rows([rows])
    for name in ("ids", "logprobs", "log_tail", "exact", "entropy", "log_normalizers"):
        values = getattr(rows.targets, name)
        assert values is None or not np.shares_memory(values, packed), name
    assert not np.shares_memory(rows.token_logprobs, packed)


def test_a_rank_without_logits_gives_no_rows() -> None:
    rows = Reducer(TargetSpec(k=4), 100).start_hidden(
        torch.zeros(9, 4), lambda hidden: None, np.zeros(9, np.int64), np.zeros((9, 0))
    )()
    assert len(rows.targets) == len(rows.token_logprobs) == 0


def test_rows_are_selected_in_any_order() -> None:
    """The last row minus the first may be their number without being consecutive: 0 to 98, 200, 100, 101."""
    values = torch.arange(300.0)[:, None]
    for rows in ([*range(99), 200, 100, 101], [3, 2, 1], [1, 1, 3], [5], [4, 5, 6], []):
        assert select_rows(values, np.array(rows, np.int64))[:, 0].tolist() == rows
    assert select_rows(values, np.arange(4, 9)).data_ptr() == values[4:].data_ptr()


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_logits_of_every_block_are_computed_when_a_block_fails(failing: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other ranks of a parallel model wait for each of them."""
    reducer = Reducer(TargetSpec(k=4), 32)
    monkeypatch.setattr(Reducer, "block_rows", lambda *arguments: 4)
    calls: list[int] = []
    plain = reducer.reduce

    def reduce(*arguments: Any) -> Rows:
        if len(calls) == failing + 1:
            raise MemoryError("no memory")
        return plain(*arguments)

    def to_logits(hidden: torch.Tensor) -> torch.Tensor:
        calls.append(len(hidden))
        return hidden

    monkeypatch.setattr(reducer, "reduce", reduce)
    with pytest.raises(ReductionError, match="MemoryError: no memory"):
        reducer.start_hidden(torch.randn(10, 32), to_logits, np.full(10, -1), np.zeros((10, 0)))
    assert calls == [4, 4, 2]


@pytest.mark.parametrize("vocabulary", [100, 151_936])
@pytest.mark.parametrize(
    "targets",
    [
        TargetSpec(k=64),
        TargetSpec("nucleus", k=64, mass=0.9, entropy=True),
        TargetSpec("threshold", threshold=0.02, temperatures=(2.0,)),
        TargetSpec("sampled", draws=50),
        TargetSpec("sampled", draws=50, systematic=True),
    ],
    ids=lambda targets: targets.mode,
)
def test_kernels_are_checked_against_torch(
    targets: TargetSpec, vocabulary: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reducer = Reducer(targets, vocabulary)
    assert reducer.check_kernels(CPU) == ""
    plain = Reducer.reduce
    changes = {
        "token_logprobs": lambda rows: replace(rows, token_logprobs=rows.token_logprobs - 0.01),
        "log_tail": lambda rows: replace(rows, targets=replace(rows.targets, log_tail=rows.targets.log_tail - 0.01)),
        "keep other": lambda rows: replace(rows, targets=replace(rows.targets, ids=rows.targets.ids[::-1].copy())),
    }
    for reason, change in changes.items():
        with monkeypatch.context() as patch:
            patch.setattr(Reducer, "reduce", lambda self, *a, change=change: change(plain(self, *a)))
            assert reason in reducer.check_kernels(CPU)


def test_a_gpu_without_kernels_uses_plain_torch_and_less_memory_for_logits() -> None:
    """With kernels, blocks take nearly all of the memory; torch needs several times as much for itself."""
    reducer, gpu = Reducer(TargetSpec("threshold", threshold=1e-4), 50_000), torch.device("cuda")
    reason = reducer.why_plain_torch(gpu)
    assert reason and reducer.why_plain_torch(gpu) == reason
    assert reducer.check_kernels(gpu) == ""  # there is nothing to compare
    assert reducer.rows_from(gpu) == f"a reduction in plain torch, which is slow ({reason})"
    assert reducer.rows_from(CPU) == ""
    assert reducer.block_rows(2, gpu) == (512 << 20) // (50_000 * (2 + TORCH_BYTES_PER_LOGIT["threshold"]))
