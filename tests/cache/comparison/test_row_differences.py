"""Differences of sparse rows: against loops over whole distributions."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.comparison.row_differences import row_differences
from cache.rows.sparse_targets import concatenate, empty_targets
from cache.rows.spec import TargetSpec
from tests.cache.rows.rows import TARGETS, log_softmax, sparse

Law = npt.NDArray[np.float64]
VOCAB = 60


def laws(seed: int, rows: int = 5, distance: float = 0.5, sharpness: float = 2.0) -> tuple[Law, Law]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, VOCAB)) * sharpness
    return log_softmax(logits), log_softmax(logits + rng.normal(size=logits.shape) * distance)


def by_hand(log_p: Law, log_q: Law, k: int) -> float:
    """The least KL of one row that its k largest ids in both allow, found by a search over shares of the tail."""
    ids = np.argsort(-log_p)[:k]
    held = set(np.argsort(-log_q)[:k].tolist())
    p, q = np.exp(log_p), np.exp(log_q)
    least = min(q[i] for i in held)
    free = [i for i in ids.tolist() if i not in held]
    tail = 1 - sum(q[i] for i in held)
    others = sum(q[i] for i in held if i not in ids)  # known, and part of the rest
    kl = sum(p[i] * (log_p[i] - log_q[i]) for i in ids.tolist() if i in held)
    rest = 1 - p[ids].sum()
    # Lagrange: q_i = min(s p_i, least) for the free ids; the rest has s rest, and no less than `others`.
    low, high = 0.0, 1e9
    for _ in range(200):
        s = (low + high) / 2
        total = sum(min(s * p[i], least) for i in free) + max(s * rest, others)
        low, high = (s, high) if total < tail + others else (low, s)
    masses = {i: min(s * p[i], least) for i in free}
    kl += sum(p[i] * math.log(p[i] / mass) for i, mass in masses.items())
    return float(kl + (rest * math.log(rest / (tail + others - sum(masses.values()))) if rest > 0 else 0.0))


@pytest.mark.parametrize("k", [3, 12, 50])
def test_rows_of_whole_distributions(k: int) -> None:
    log_p, log_q = laws(0)
    spec, rng = TargetSpec("topk", k), np.random.default_rng(0)
    found = row_differences(sparse(rng, log_p, spec), sparse(rng, log_q, spec))
    for row in range(len(log_p)):
        assert found.kl[row] == pytest.approx(by_hand(log_p[row], log_q[row], k), rel=1e-4, abs=1e-7)
        whole = np.abs(np.exp(log_p[row]) - np.exp(log_q[row])).sum() / 2
        assert (0.9 if k == 50 else 0.3 if k == 12 else 0.0) * whole < found.total_variation[row] < whole + 1e-6
        first = int(log_p[row].argmax())
        assert found.same_first[row] == (first == int(log_q[row].argmax()))
        if first in np.argsort(-log_q[row])[:k]:
            assert found.first_error[row] == pytest.approx(abs(log_p[row, first] - log_q[row, first]), rel=1e-4)
        shared = len(set(np.argsort(-log_p[row])[:k]) & set(np.argsort(-log_q[row])[:k]))
        assert found.shared[row] == pytest.approx(shared / k)


@given(st.integers(0, 10**6), st.integers(1, VOCAB - 1), st.floats(0.0, 3.0), st.floats(0.5, 8.0))
@settings(max_examples=80, deadline=None)
def test_a_divergence_is_a_lower_bound_and_never_negative(seed: int, k: int, distance: float, sharpness: float) -> None:
    log_p, log_q = laws(seed, 3, distance, sharpness)
    spec, rng = TargetSpec("topk", k), np.random.default_rng(0)
    found = row_differences(sparse(rng, log_p, spec), sparse(rng, log_q, spec))
    whole = (np.exp(log_p) * (log_p - log_q)).sum(1)
    assert (found.kl >= 0).all() and (found.kl <= whole + 1e-5).all()
    assert (found.total_variation <= np.abs(np.exp(log_p) - np.exp(log_q)).sum(1) / 2 + 1e-6).all()


@pytest.mark.parametrize("mode", ["topk", "nucleus", "threshold"])
def test_a_row_does_not_differ_from_itself(mode: str) -> None:
    rows = sparse(np.random.default_rng(0), laws(1)[0], TARGETS[mode])
    found = row_differences(rows, rows)
    assert len(found.row) == 5 and found.kl.max() < 1e-6 and found.total_variation.max() < 1e-6
    assert found.same_first.all() and (found.shared == 1).all() and (found.first_error == 0).all()


def test_only_rows_with_entries_in_both_are_compared() -> None:
    """Rows 0 and 3 of the one, and row 1 of the other, have none; draws have no exact entries at all."""
    rng, (log_p, log_q) = np.random.default_rng(0), laws(2, 4)
    spec = TargetSpec("topk", 9)
    ours = concatenate([empty_targets(1), sparse(rng, log_p[1:3], spec), empty_targets(1)])
    theirs = concatenate([sparse(rng, log_q[:1], spec), empty_targets(1), sparse(rng, log_q[2:], spec)])
    found = row_differences(ours, theirs)
    assert found.row.tolist() == [2]
    assert found.kl[0] == pytest.approx(by_hand(log_p[2], log_q[2], 9), rel=1e-4)
    drawn = sparse(rng, log_q, TARGETS["sampled"])
    assert len(row_differences(drawn, drawn).row) == 0


def test_rows_without_a_common_id_are_far_apart() -> None:
    """Would catch a bound for which an engine that says something else altogether is the same."""
    log_p, log_q = (np.full((1, VOCAB), -20.0) for _ in range(2))
    log_p[0, 3], log_q[0, 5] = 0.0, 0.0
    spec, rng = TargetSpec("topk", 1), np.random.default_rng(0)
    found = row_differences(sparse(rng, log_softmax(log_p), spec), sparse(rng, log_softmax(log_q), spec))
    assert not found.same_first[0] and found.shared[0] == 0 and math.isnan(found.first_error[0])
    assert found.kl[0] > 10 and found.total_variation[0] == pytest.approx(1.0, abs=1e-4)
