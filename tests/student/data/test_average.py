"""Averages of targets are averages of distributions: bounded for truncated rows, unbiased for sampled rows."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.errors import InputError
from cache.rows.sparse_targets import SparseTargets, concatenate, empty_targets
from cache.rows.spec import TargetSpec
from student.data import averaged_stores
from student.data.averaged_stores import average
from tests.cache.rows.rows import TARGETS, VOCAB, log_softmax, random_rows, sparse

EXACT = [TARGETS["topk"], TARGETS["nucleus"], TargetSpec("topk", 3)]
UNBIASED = [TARGETS["threshold"], TARGETS["sampled"], TargetSpec("threshold", threshold=0.1)]
Dense = npt.NDArray[np.float64]


def dense_rows(rng: np.random.Generator, teachers: int, rows: int, vocab: int) -> list[Dense]:
    """log p of teachers that agree in part, so that their supports overlap in part."""
    common = rng.normal(size=(rows, vocab)) * 3
    return [log_softmax(common + rng.normal(size=(rows, vocab)) * rng.uniform(0, 3)) for _ in range(teachers)]


def spread(targets: SparseTargets, vocab: int) -> tuple[Dense, npt.NDArray[np.bool_]]:
    """exp(logprob) of every id, and whether it is an exact entry, both [rows, vocabulary]."""
    p, exact = np.zeros((len(targets), vocab)), np.zeros((len(targets), vocab), bool)
    row = targets.row_of_entry
    p[row, targets.ids] = np.exp(targets.logprobs.astype(np.float64))
    exact[row, targets.ids] = targets.rank_of_entry < np.repeat(targets.exact_counts, targets.counts)
    return p, exact


def average_of_random_teachers(
    specs: list[TargetSpec], weights: list[float], seed: int
) -> tuple[np.ndarray, list[SparseTargets], np.ndarray, SparseTargets, int]:
    """Dense log-probabilities [teachers, 4, vocabulary], targets, shares, the average, and the vocabulary size."""
    rng = np.random.default_rng(seed)
    vocab = int(rng.integers(25, 120))
    teachers = dense_rows(rng, len(specs), 4, vocab)
    given_targets = [sparse(rng, log_p, spec) for log_p, spec in zip(teachers, specs, strict=True)]
    weights = weights[: len(specs)]
    shares = np.array(weights) / sum(weights)
    result = average(given_targets, weights)
    result.validate(vocab, "average")
    return teachers, given_targets, shares, result, vocab


@settings(deadline=None, max_examples=60)
@given(
    specs=st.lists(st.sampled_from(EXACT), min_size=1, max_size=3),
    weights=st.lists(st.floats(0.05, 9), min_size=3, max_size=3),
    seed=st.integers(0, 10**6),
)
def test_exact_entries_bound_the_dense_average(specs: list[TargetSpec], weights: list[float], seed: int) -> None:
    teachers, given_targets, shares, result, vocab = average_of_random_teachers(specs, weights, seed)
    assert result.exact is None and result.entropy is None and result.log_normalizers is None

    p, is_entry = spread(result, vocab)
    truth = np.tensordot(shares, np.exp(teachers), axes=1)
    entries = [spread(targets, vocab)[1] for targets in given_targets]
    assert np.array_equal(is_entry, np.logical_or.reduce(entries))
    missed = np.zeros_like(truth)
    for share, here, log_p, targets in zip(shares, entries, teachers, given_targets, strict=True):
        smallest = np.where(here, np.exp(log_p), 1).min(axis=1)
        missed += share * ~here * np.minimum(smallest, np.exp(targets.log_tail.astype(np.float64)))[:, None]
    slack = 1e-6 * truth + 1e-9
    assert (p <= truth + slack)[is_entry].all()
    assert (p >= truth - missed - slack)[is_entry].all()
    assert np.allclose(p[is_entry & (missed == 0)], truth[is_entry & (missed == 0)], rtol=1e-5)
    tail = np.exp(result.log_tail.astype(np.float64))
    assert (tail >= np.where(is_entry, 0, truth).sum(axis=1) - 1e-6).all()
    assert np.allclose(p.sum(axis=1) + tail, 1, atol=1e-5)


@settings(deadline=None, max_examples=60)
@given(
    specs=st.lists(st.sampled_from(UNBIASED), min_size=1, max_size=3),
    weights=st.lists(st.floats(0.05, 9), min_size=3, max_size=3),
    seed=st.integers(0, 10**6),
)
def test_estimates_add_up_to_the_sum_of_the_estimates(specs: list[TargetSpec], weights: list[float], seed: int) -> None:
    """A sum of unbiased estimates is unbiased; and only what is exact in every teacher is exact."""
    teachers, given_targets, shares, result, vocab = average_of_random_teachers(specs, weights, seed)
    assert result.entropy is None and result.log_normalizers is None

    each = [spread(targets, vocab) for targets in given_targets]
    p, exact = spread(result, vocab)
    assert np.allclose(p, sum(share * q for share, (q, _) in zip(shares, each, strict=True)), rtol=1e-5, atol=0)
    assert np.array_equal(exact, np.logical_and.reduce([certain for _, certain in each]))
    truth = np.tensordot(shares, np.exp(teachers), axes=1)
    assert np.allclose(p[exact], truth[exact], rtol=1e-5)
    outside = np.where(exact, 0, truth).sum(axis=1)
    assert np.allclose(np.exp(result.log_tail), np.where(exact.any(axis=1), outside, 1), atol=1e-5)


def test_draws_average_to_the_dense_average() -> None:
    """Both kinds of estimates together, against the distributions themselves and not against each other."""
    rng = np.random.default_rng(3)
    teachers = dense_rows(rng, 2, 1, 40)
    draws = 4000
    given_targets = [
        sparse(rng, np.repeat(log_p, draws, axis=0), spec)
        for log_p, spec in zip(teachers, [UNBIASED[2], TargetSpec("sampled", draws=20)], strict=True)
    ]
    p, _ = spread(average(given_targets, [1, 2]), 40)
    a, b = np.exp(teachers[0][0]), np.exp(teachers[1][0])
    # Variance of an estimate is at most threshold * p, or p / draws; a draw or two of a rare id is no bias.
    error = np.sqrt((0.1 * a + 4 * b / 20) / 9 / draws)
    assert (np.abs(p.mean(axis=0) - (a + 2 * b) / 3) < 5 * error + 3e-5).all()
    assert error.max() < 0.003


def test_rows_with_every_id_average_exactly_and_have_no_tail() -> None:
    rng = np.random.default_rng(0)
    teachers = dense_rows(rng, 3, 5, 30)
    result = average([sparse(rng, log_p, TargetSpec("topk", 30)) for log_p in teachers], [1, 2, 5])
    p, _ = spread(result, 30)
    assert np.allclose(p, np.tensordot([0.125, 0.25, 0.625], np.exp(teachers), axes=1), rtol=1e-5)
    assert (result.log_tail < -25).all()


@pytest.mark.parametrize("mode", TARGETS)
def test_one_teacher_stays_as_it_is(mode: str) -> None:
    """Entries whose value is the same may change places, nothing else."""
    targets = random_rows(np.random.default_rng(1), 30, TARGETS[mode])
    result = average([targets], [0.3])
    for before, after in zip(spread(targets, VOCAB), spread(result, VOCAB), strict=True):
        assert np.array_equal(before, after)
    assert np.allclose(result.log_tail, targets.log_tail, rtol=1e-6)
    assert np.array_equal(result.exact_counts, targets.exact_counts)


def test_a_teacher_twice_is_that_teacher() -> None:
    """Its sampled ids are then sampled in both, and stay so."""
    targets = random_rows(np.random.default_rng(1), 30, TARGETS["threshold"])
    result = average([targets, targets], [1, 3])
    for before, after in zip(spread(targets, VOCAB), spread(result, VOCAB), strict=True):
        assert np.allclose(before, after, rtol=1e-5, atol=0)


def test_a_row_needs_all_teachers() -> None:
    rng = np.random.default_rng(2)
    a = concatenate([empty_targets(1), random_rows(rng, 2, TARGETS["topk"]), empty_targets(1)])
    b = concatenate([random_rows(rng, 2, TARGETS["topk"]), empty_targets(2)])
    result = average([a, b], [1, 1])
    result.validate(VOCAB, "average")
    assert (result.counts > 0).tolist() == [False, True, False, False]
    assert result.log_tail[[0, 2, 3]].tolist() == [0, 0, 0]


def test_blocks_of_rows_leave_no_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    given_targets = [random_rows(rng, 23, TARGETS["nucleus"]) for _ in range(2)]
    at_once = average(given_targets, [1, 2])
    monkeypatch.setattr(averaged_stores, "ROWS_PER_BLOCK", 5)
    parts = average(given_targets, [1, 2])
    for name in ("offsets", "ids", "logprobs", "log_tail"):
        assert np.array_equal(getattr(at_once, name), getattr(parts, name))


def test_certain_and_all_but_impossible_entries_survive() -> None:
    """Log-probabilities of 0 and of -700, which no float32 probability holds."""
    certain = SparseTargets(
        np.array([0, 2]), np.array([7, 3], np.uint32), np.array([0, -700], np.float32), np.array([-np.inf], np.float32)
    )
    other = replace(certain, ids=np.array([7, 9], np.uint32))
    result = average([certain, other], [1, 1])
    result.validate(10, "average")
    assert result.ids.tolist() == [7, 3, 9]
    assert np.allclose(result.logprobs, [0, -700 - np.log(2), -700 - np.log(2)])
    assert result.log_tail.tolist() == [-np.inf]


def test_no_rows_average_to_none() -> None:
    assert len(average([empty_targets(0), empty_targets(0)], [1, 1])) == 0
    assert average([empty_targets(3), empty_targets(3)], [1, 1]).counts.tolist() == [0, 0, 0]


def test_unlike_targets_and_bad_weights_are_rejected() -> None:
    rng = np.random.default_rng(0)
    a, b = random_rows(rng, 3, TARGETS["topk"]), random_rows(rng, 3, TARGETS["threshold"])
    with pytest.raises(InputError, match="neither a bound nor an unbiased"):
        average([a, b], [1, 1])
    with pytest.raises(InputError, match=r"\[3, 2\] rows"):
        average([a, a.rows(0, 2)], [1, 1])
    for weights in ([1], [1, 0], [1, -1], [1, float("nan")]):
        with pytest.raises(InputError, match="a positive weight for each"):
            average([a, a], weights)
    average([b, empty_targets(3)], [1, 1])  # rows without entries are of either kind
