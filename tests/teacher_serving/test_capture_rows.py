"""Engine rectangles become rows with the right tail, in the right place."""

import numpy as np
import pytest

from teacher_serving.capture_rows import place_rows, rows_from_topk


def test_tail_is_what_the_entries_leave() -> None:
    ids = np.array([[3, 1], [0, 2]])
    logprobs = np.log(np.array([[0.5, 0.25], [0.9, 0.1]], np.float32))
    rows = rows_from_topk(ids, logprobs, vocab_size=4)
    assert rows.ids.tolist() == [3, 1, 0, 2]
    assert np.exp(rows.log_tail[0]) == pytest.approx(0.25)
    assert np.exp(rows.log_tail[1]) == pytest.approx(0, abs=1e-6)


def test_the_whole_vocabulary_leaves_no_tail() -> None:
    rows = rows_from_topk(np.array([[0, 1]]), np.log(np.array([[0.7, 0.2999]], np.float32)), vocab_size=2)
    assert np.isneginf(rows.log_tail).all()


def test_masked_entries_are_left_out() -> None:
    rows = rows_from_topk(np.array([[5, 6, 7]]), np.array([[-0.1, -3.0, -np.inf]], np.float32), vocab_size=9)
    assert rows.ids.tolist() == [5, 6]
    rows.validate(9, "row")


def test_rows_stand_where_they_belong() -> None:
    rows = rows_from_topk(np.array([[1], [2]]), np.log(np.array([[0.5], [0.6]], np.float32)), vocab_size=4)
    placed = place_rows(rows, first_row=3, n=7)
    assert placed.counts.tolist() == [0, 0, 0, 1, 1, 0, 0]
    assert placed.rows(4, 5).ids.tolist() == [2]
