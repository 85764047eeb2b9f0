"""Triton's kernels give the rows of dense float64 arithmetic, and the same bits for any batch.

They run on a GPU, or by Triton's interpreter on a CPU, which takes about a second for a row.
"""

import importlib.util
import math
import os

import numpy as np
import pytest
import torch

from cache.rows.spec import TargetSpec
from teacher_serving.reduction.reducer import Reducer
from teacher_serving.reduction.triton_backend import MAX_DRAWS, MAX_HEAD, Plan, missing_for, reduce_packed
from tests.teacher_serving.reduction.dense import check_rows, close, dense, drawn, random_logits, reduced

if importlib.util.find_spec("triton") is None:
    pytest.skip("the package triton is not installed", allow_module_level=True)
ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
if not ON_GPU:
    os.environ["TRITON_INTERPRET"] = "1"  # before the kernels are imported

ONLY_ON_GPU = pytest.mark.skipif(not ON_GPU, reason="needs a GPU: the interpreter would take hours")
TARGETS = {
    "topk": TargetSpec(k=8, entropy=True, temperatures=(0.5, 2.0, 30.0)),
    "nucleus": TargetSpec("nucleus", k=16, mass=0.9),
    "threshold": TargetSpec("threshold", threshold=0.1, entropy=True),
    "sampled": TargetSpec("sampled", draws=10, temperatures=(0.7,)),
    "systematic": TargetSpec("sampled", draws=10, systematic=True),
}
WIDE = {
    "topk": TargetSpec(k=512, entropy=True, temperatures=(0.5, 2.0)),
    "nucleus": TargetSpec("nucleus", k=64, mass=0.98),
    "threshold": TargetSpec("threshold", threshold=0.05),
    "sampled": TargetSpec("sampled", draws=64),
}
EACH_MODE = pytest.mark.parametrize("name", list(TARGETS))
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
NAN, MINUS_NAN = np.array([0x7FC00000, 0xFFC00000], np.uint32).view(np.float32)


def packed(logits: torch.Tensor, targets: TargetSpec, numbers: np.ndarray | None = None) -> np.ndarray:
    """All bits of the rows that are used."""
    n = len(logits)
    numbers = drawn(targets, n) if numbers is None else numbers
    tokens = torch.zeros(n, dtype=torch.int64, device=DEVICE)
    block = reduce_packed(logits.to(DEVICE), tokens, torch.from_numpy(numbers).to(DEVICE), targets)
    bits = block.packed.cpu().numpy()
    k = block.entries
    unused = np.arange(k) >= bits[:, 2 * k, None]
    bits[:, : 2 * k][np.concatenate([unused, unused], axis=1)] = 0
    if not targets.entropy:
        bits[:, 2 * k + 4] = 0
    return bits


@EACH_MODE
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("vocabulary", [3, 130, 4099])
def test_rows_are_those_of_dense_arithmetic(name: str, vocabulary: int, dtype: torch.dtype) -> None:
    logits = random_logits(5, vocabulary).to(dtype)
    following = np.append(np.random.default_rng(0).integers(0, vocabulary, 4), -1)
    rows = reduced("triton", logits, TARGETS[name], following)
    check_rows(rows, dense(logits), TARGETS[name])
    assert close(rows.token_logprobs[:-1], dense(logits)[np.arange(4), following[:-1]])
    assert np.isnan(rows.token_logprobs[-1])


@ONLY_ON_GPU
@pytest.mark.parametrize("name", list(WIDE))
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("vocabulary", [32_000, 49_152, 50_257, 151_936, 262_144])
def test_rows_of_real_vocabularies_are_those_of_dense_arithmetic(
    name: str, vocabulary: int, dtype: torch.dtype
) -> None:
    logits = random_logits(9, vocabulary).to(dtype)
    rows = reduced("triton", logits, WIDE[name], np.arange(9))
    check_rows(rows, dense(logits), WIDE[name])
    assert close(rows.token_logprobs, dense(logits)[np.arange(9), np.arange(9)])


@EACH_MODE
@pytest.mark.parametrize("spread, offset", [(1e-3, 0.0), (100.0, 0.0), (1.0, 1e4), (100.0, -1e4)])
def test_scales_and_offsets_cost_no_accuracy(name: str, spread: float, offset: float) -> None:
    logits = random_logits(3, 500, seed=1) * spread + offset
    rows = reduced("triton", logits, TARGETS[name], logits.argmax(-1).numpy())
    check_rows(rows, dense(logits), TARGETS[name])
    assert close(rows.token_logprobs, dense(logits).max(axis=1))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_of_equal_logits_the_smaller_id_comes_first(dtype: torch.dtype) -> None:
    logits = (random_logits(3, 700).round() + 0.0).to(dtype)  # few values, nearly all ties; -0.0 is none
    logits[2] = 1.5
    order = np.argsort(-logits.float().numpy(), axis=1, kind="stable")
    for k in (1, 6, 40):
        rows = reduced("triton", logits, TargetSpec(k=k))
        assert np.array_equal(rows.targets.ids.reshape(3, k), order[:, :k])
        check_rows(rows, dense(logits), TargetSpec(k=k))


def test_many_large_logits_in_few_chunks_are_sorted_out() -> None:
    """More logits than the kernel sorts lie above the smallest maximum of the chosen chunks."""
    logits = random_logits(3, 3000)
    logits[0, 1000:1500] += 40
    logits[1, :900] = torch.linspace(10, 20, 900)
    for k in (5, 16):
        rows = reduced("triton", logits, TargetSpec(k=k))
        order = np.argsort(-logits.numpy(), axis=1, kind="stable")
        assert np.array_equal(rows.targets.ids.reshape(3, k), order[:, :k])
        check_rows(rows, dense(logits), TargetSpec(k=k))


@EACH_MODE
def test_padding_layout_and_the_distance_of_rows_change_nothing(name: str) -> None:
    wide = random_logits(3, 320)
    wide[:, 300:] = 1000.0
    truth = packed(wide[:, :300].contiguous(), TARGETS[name])
    turned = wide.T.contiguous().T
    assert turned.stride(1) != 1
    for given in (wide[:, :300], turned[:, :300], torch.stack([wide, wide], 1)[:, 0, :300]):
        assert np.array_equal(packed(given, TARGETS[name]), truth)


@EACH_MODE
@pytest.mark.parametrize("left", [1, 2, 40])
def test_ids_that_the_model_rules_out_never_appear(name: str, left: int) -> None:
    rng = np.random.default_rng(left)
    logits = torch.full((4, 500), -math.inf)
    for row in logits:
        row[torch.from_numpy(rng.choice(500, left, replace=False))] = torch.from_numpy(rng.normal(size=left)).float()
    rows = reduced("triton", logits, TARGETS[name], np.zeros(4, np.int64))
    check_rows(rows, dense(logits), TARGETS[name])
    assert (rows.targets.counts <= left).all()


@EACH_MODE
@pytest.mark.parametrize("value", [NAN, MINUS_NAN, math.inf])
def test_a_row_without_a_distribution_is_empty_and_its_neighbours_are_not(name: str, value: float) -> None:
    logits = random_logits(7, 200).numpy()
    truth = dense(torch.from_numpy(logits))
    logits[1] = value
    logits[3, 0] = value
    logits[4, -1] = value
    logits[5, :150] = -math.inf
    logits[5, 1] = value
    logits[6] = -math.inf
    rows = reduced("triton", torch.from_numpy(logits), TARGETS[name], np.full(7, 2))
    good = np.array([0, 2])
    assert np.flatnonzero(rows.targets.counts).tolist() == good.tolist()
    assert np.flatnonzero(~np.isnan(rows.token_logprobs)).tolist() == good.tolist()
    assert close(rows.token_logprobs[good], truth[good, 2])


@pytest.mark.parametrize("rest", [1e-3, 1e-9])
def test_a_small_tail_keeps_its_digits(rest: float) -> None:
    rng = np.random.default_rng(0)
    head, tail = rng.dirichlet(np.ones(16), 3) * (1 - rest), rng.dirichlet(np.ones(984), 3) * rest
    logits = torch.from_numpy(np.log(np.concatenate([tail[:, :500], head, tail[:, 500:]], axis=1))).float()
    largest = reduced("triton", logits, TargetSpec(k=16)).targets
    assert np.abs(np.exp(largest.log_tail.astype(np.float64)) / rest - 1).max() < 1e-4


@EACH_MODE
def test_a_rerun_and_any_batch_give_the_same_bits(name: str) -> None:
    logits, targets = random_logits(6, 5000, seed=5).bfloat16(), TARGETS[name]
    numbers = drawn(targets, 6)
    whole = packed(logits, targets, numbers)
    assert np.array_equal(packed(logits, targets, numbers), whole)
    for rows in (slice(0, 1), slice(1, 6)):
        assert np.array_equal(packed(logits[rows], targets, numbers[rows]), whole[rows])


@pytest.mark.parametrize("number", [0.0, math.nextafter(1.0, 0.0)])
def test_draws_are_in_range_for_extreme_random_numbers(number: float) -> None:
    logits = random_logits(3, 300, 1e-3)
    rows = reduced("triton", logits, TargetSpec("sampled", draws=7), numbers=np.full((3, 7), number)).targets
    assert rows.ids.tolist() == [0 if number == 0 else 299] * 3 and not rows.logprobs.any()
    rows = reduced("triton", logits, TargetSpec("threshold", threshold=0.1), numbers=np.full((3, 1), number)).targets
    rows.validate(300, "rows")
    assert set(rows.counts.tolist()) <= {9, 10, 11}


@pytest.mark.parametrize("name", ["threshold", "sampled", "systematic"])
def test_draws_are_those_of_the_loops(name: str) -> None:
    n = 500 if ON_GPU else 6
    logits = random_logits(n, 1000)
    one, other = (reduced(way, logits, TARGETS[name]).targets for way in ("triton", "loops"))
    # Sums differ in their last digits, which moves a draw that falls between two ids.
    moved = sum(not np.array_equal(one.rows(i, i + 1).ids, other.rows(i, i + 1).ids) for i in range(n))
    assert moved <= n // 100


def test_what_the_kernels_cannot_do_has_a_reason() -> None:
    for targets, reason in (
        (TargetSpec(k=MAX_HEAD + 1), "more than the"),
        (TargetSpec("sampled", draws=MAX_DRAWS + 1), "more than the"),
        (TargetSpec("threshold", threshold=1e-5), "more than the"),
    ):
        assert reason in missing_for(targets, 50_000, DEVICE)
    assert "wider" in missing_for(TargetSpec(k=4), 1 << 23, DEVICE)
    assert missing_for(TargetSpec(k=512), 262_144, DEVICE) == ""


@pytest.mark.parametrize("targets", WIDE.values(), ids=list(WIDE))
def test_few_bytes_are_moved_for_a_logit(targets: TargetSpec) -> None:
    plan = Plan.of(targets, 151_936)
    assert plan.chunks * plan.chunk >= 151_936 > (plan.chunks - 1) * plan.chunk
    assert targets.k == 512 or plan.bytes_per_logit(targets, 151_936, 2) < 2.5


@ONLY_ON_GPU
@pytest.mark.parametrize("name", list(WIDE))
def test_many_rows_lie_beyond_32_bits(name: str) -> None:
    vocabulary = 262_144
    n = (1 << 31) // vocabulary + 40
    few = (random_logits(16, vocabulary) * 2).bfloat16().to(DEVICE)
    logits = few.repeat(-(-n // 16), 1)[:n]
    numbers = np.tile(drawn(WIDE[name], 16), (-(-n // 16), 1))[:n]
    bits = packed(logits, WIDE[name], numbers)
    assert np.array_equal(bits, np.tile(bits[:16], (-(-n // 16), 1))[:n])
    check_rows(reduced("triton", few.cpu(), WIDE[name], numbers=numbers[:16]), dense(few.cpu()), WIDE[name])


@ONLY_ON_GPU
@pytest.mark.parametrize("name", list(WIDE))
def test_nothing_waits_for_the_device_before_the_rows_are_asked_for(name: str) -> None:
    targets = WIDE[name]
    logits = random_logits(700, 32_000).bfloat16().to(DEVICE)
    reducer = Reducer(targets, 32_000, memory_mib=16)
    following, numbers = np.arange(700), drawn(targets, 700)
    truth = reducer.reduce(logits, following, numbers)
    torch.cuda.synchronize()
    try:
        torch.cuda.set_sync_debug_mode("error")
        rows = reducer.start(logits, following, numbers)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert np.array_equal(rows().targets.ids, truth.targets.ids)


@ONLY_ON_GPU
@pytest.mark.parametrize("name", list(WIDE))
@pytest.mark.parametrize("vocabulary", [1000, 151_936])
def test_kernels_are_compared_with_torch_at_the_start(
    name: str, vocabulary: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reducer = Reducer(WIDE[name], vocabulary)
    assert reducer.check_kernels(DEVICE) == "" and reducer.why_plain_torch(DEVICE) == ""
    plain = Reducer.reduce_with_torch
    monkeypatch.setattr(Reducer, "reduce_with_torch", lambda self, x, *rest: plain(self, x * 1.01, *rest))
    assert reducer.check_kernels(DEVICE) == "" and "cannot be used" in reducer.why_plain_torch(DEVICE)
