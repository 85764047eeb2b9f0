"""Build sparse target rows from probability masses of student tokens."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cache.rows.sparse_targets import SparseTargets
from student.tokenizers.vocabulary_map import NO_TOKEN

# A row is dropped if its entries have no more mass than this.
MIN_ROW_MASS = 1e-6


class Entries(NamedTuple):
    """Entries of the distributions of several tokens.

    positions: int64 [e], the token that each entry is a candidate for. ids: int64 [e], student ids; an id may occur
    twice, and NO_TOKEN is the tail. masses: float64 [e], probabilities.
    """

    positions: npt.NDArray[np.int64]
    ids: npt.NDArray[np.int64]
    masses: npt.NDArray[np.float64]


def build_rows(n: int, parts: list[Entries]) -> SparseTargets:
    """Build n rows from entries. The distribution of token j is row j - 1.

    Masses of one id are added, and those of NO_TOKEN are the tail. Entries of equal mass keep their order. Rows whose
    entries have almost no mass are dropped.
    """
    empty = Entries(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    positions, ids, masses = (np.concatenate(arrays) for arrays in zip(empty, *parts, strict=True))
    has_row = positions > 0
    rows, ids, masses = positions[has_row] - 1, ids[has_row], masses[has_row]
    order = np.lexsort((ids, rows))
    is_new = np.append(True, (np.diff(rows[order]) != 0) | (np.diff(ids[order]) != 0))[: len(order)]
    groups = np.flatnonzero(is_new)
    masses = np.add.reduceat(masses[order], groups) if len(groups) else masses
    first_entries = order[groups]
    rows, ids = rows[first_entries], ids[first_entries]
    is_entry = (ids != NO_TOKEN) & (masses > 0)
    entry_masses = np.bincount(rows[is_entry], masses[is_entry], n)
    tails = np.bincount(rows[~is_entry], masses[~is_entry], n)
    selected = np.flatnonzero(is_entry & (entry_masses[rows] > MIN_ROW_MASS))
    selected = selected[np.lexsort((first_entries[selected], -masses[selected], rows[selected]))]
    counts = np.bincount(rows[selected], minlength=n)
    with np.errstate(divide="ignore"):
        log_tail = np.minimum(np.log(tails), -MIN_ROW_MASS / 2)
    return SparseTargets(
        np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]),
        ids[selected].astype(np.uint32),
        np.minimum(np.log(masses[selected]), 0.0).astype(np.float32),
        np.where(counts > 0, log_tail, 0.0).astype(np.float32),
    )


def keep_largest(targets: SparseTargets, most: int) -> SparseTargets:
    """The first `most` entries of each row, which are its largest. The mass of the others goes to the tail."""
    if not len(targets) or int(targets.counts.max()) <= most:
        return targets
    is_kept, masses = targets.rank_of_entry < most, np.exp(targets.logprobs.astype(np.float64))
    moved = np.bincount(targets.row_of_entry[~is_kept], masses[~is_kept], len(targets))
    with np.errstate(divide="ignore"):
        log_tail = np.where(moved > 0, np.log(np.exp(targets.log_tail.astype(np.float64)) + moved), targets.log_tail)
    return SparseTargets(
        np.concatenate([np.zeros(1, np.int64), np.cumsum(np.minimum(targets.counts, most))]),
        targets.ids[is_kept],
        targets.logprobs[is_kept],
        np.minimum(log_tail, 0.0).astype(np.float32),
    )
