"""Rectangular arrays of an engine become rows with the right tail at the right position."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.rows.sparse_targets import SparseTargets
from teacher_serving.reduction.row_arrays import cut_to_nucleus, rows_from_topk, scatter_rows, take_rows


def test_tail_is_what_the_entries_leave() -> None:
    ids = np.array([[3, 1], [0, 2]])
    logprobs = np.log(np.array([[0.5, 0.25], [0.9, 0.1]], np.float32))
    rows = rows_from_topk(ids, logprobs, vocab_size=4)
    assert rows.ids.tolist() == [3, 1, 0, 2]
    assert np.exp(rows.log_tail[0]) == pytest.approx(0.25)
    assert np.exp(rows.log_tail[1]) == pytest.approx(0, abs=1e-6)


def test_rows_with_every_id_have_no_tail() -> None:
    rows = rows_from_topk(np.array([[0, 1]]), np.log(np.array([[0.7, 0.2999]], np.float32)), vocab_size=2)
    assert np.isneginf(rows.log_tail).all()


def test_masked_entries_are_left_out() -> None:
    rows = rows_from_topk(np.array([[5, 6, 7]]), np.array([[-0.1, -3.0, -np.inf]], np.float32), vocab_size=9)
    assert rows.ids.tolist() == [5, 6]
    rows.validate(9, "row")


def some_rows(n: int) -> SparseTargets:
    """Rows of every kind of field, whose entries tell them apart."""
    counts = np.arange(n) % 3
    total = int(counts.sum())
    return SparseTargets(
        np.concatenate([[0], np.cumsum(counts)]),
        np.arange(total, dtype=np.uint32),
        -np.arange(total, dtype=np.float32),
        np.where(counts > 0, -np.arange(n) - 1.0, 0).astype(np.float32),
        counts // 2,
        np.arange(n, dtype=np.float32),
        np.arange(2 * n, dtype=np.float32).reshape(n, 2),
    )


def same(one: SparseTargets, other: SparseTargets) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name), equal_nan=name not in ("offsets", "ids", "exact"))
        for name in SparseTargets.__slots__
    )


def test_rows_stand_where_they_belong() -> None:
    rows = some_rows(5)
    places = np.array([1, 2, 5, 6, 8])
    placed = scatter_rows(rows, places, 10)
    assert np.flatnonzero(placed.counts).tolist() == [2, 5, 8]
    assert same(take_rows(placed, places), rows)
    others = take_rows(placed, np.array([0, 3, 4, 7, 9]))
    assert not others.counts.any() and not others.log_tail.any() and others.exact is not None and not others.exact.any()
    assert others.entropy is not None and np.isnan(others.entropy).all()
    assert others.log_normalizers is not None and np.isnan(others.log_normalizers).all()
    plain = scatter_rows(rows_from_topk(np.array([[1]]), np.zeros((1, 1), np.float32), 4), np.array([2]), 4)
    assert plain.exact is None and plain.entropy is None and plain.counts.tolist() == [0, 0, 1, 0]


@given(st.lists(st.integers(0, 6), max_size=12))
def test_rows_are_taken_in_any_order(order: list[int]) -> None:
    rows = some_rows(7)
    taken = take_rows(rows, np.array(order, np.int64))
    assert len(taken) == len(order)
    for i, j in enumerate(order):
        assert same(taken.rows(i, i + 1), rows.rows(j, j + 1))


@given(st.lists(st.floats(0.001, 1), min_size=2, max_size=12), st.integers(1, 12), st.floats(0.01, 0.999))
def test_a_nucleus_is_the_smallest_head_with_the_mass(weights: list[float], k: int, mass: float) -> None:
    p = np.sort(np.array(weights) / sum(weights))[::-1]
    k = min(k, len(p))
    rows = rows_from_topk(np.arange(k)[None], np.log(p[:k]).astype(np.float32)[None], len(p))
    cut = cut_to_nucleus(rows, mass)
    cut.validate(len(p), "row")
    n = int(cut.counts[0])
    assert cut.ids.tolist() == list(range(n)) and np.array_equal(cut.logprobs, rows.logprobs[:n])
    assert n == 1 or p[: n - 1].sum() < mass + 1e-6
    assert n == k or p[:n].sum() > mass - 1e-6
    assert np.exp(cut.log_tail[0]) == pytest.approx(1 - p[:n].sum(), abs=1e-6)
