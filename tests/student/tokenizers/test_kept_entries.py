"""Aligned rows have no more entries than a store's rows may have."""

import numpy as np

from cache.rows.sparse_targets import SparseTargets
from student.tokenizers.target_rows import keep_largest


def rows(*masses: list[float]) -> SparseTargets:
    offsets = np.cumsum([0, *map(len, masses)])
    entries = np.array([mass for row in masses for mass in row])
    tails = np.array([1 - sum(row) if row else 1.0 for row in masses])
    with np.errstate(divide="ignore"):
        return SparseTargets(
            offsets.astype(np.int64),
            np.arange(len(entries), dtype=np.uint32),
            np.log(entries).astype(np.float32),
            np.log(tails).astype(np.float32),
        )


def test_the_smallest_entries_become_a_part_of_the_tail() -> None:
    """Would catch mass that is lost or counted twice, and entries of another row."""
    whole = rows([0.5, 0.25, 0.25], [], [0.6, 0.3], [0.4, 0.3, 0.2, 0.05])
    kept = keep_largest(whole, 2)
    assert kept.counts.tolist() == [2, 0, 2, 2]
    assert kept.ids.tolist() == [0, 1, 3, 4, 5, 6]
    assert np.allclose(np.exp(kept.log_tail), [0.25, 1.0, 0.1, 0.3], atol=1e-6)
    assert np.allclose(np.exp(kept.logprobs), [0.5, 0.25, 0.6, 0.3, 0.4, 0.3])


def test_rows_that_fit_stay_as_they_are() -> None:
    whole, empty = rows([0.5, 0.5], [0.2]), rows()
    assert keep_largest(whole, 2) is whole and keep_largest(empty, 1) is empty
