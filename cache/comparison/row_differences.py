"""Divergences of sparse distributions from others of the same positions."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cache.rows.sparse_targets import SparseTargets

# The smallest mass whose logarithm is taken: stored masses are rounded.
LEAST = 1e-9
# Passes that share out the mass of a tail. Each fixes at least one id, and nearly always all that there are to fix.
PASSES = 32
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class RowDifferences(NamedTuple):
    """Of R rows of `other` from those of a reference, each [R].

    row: int64, number of the row. kl: KL(reference || other) in nats, and total_variation: half the sum of |p - q|.
    Both are lower bounds, which lack little where the rows have most of the mass: the ids of the reference are outcomes
    of their own, and all others are one together. An id that the other row lacks has at most the mass of its smallest
    entry, and all of them its tail; of what is possible, the nearest to the reference is taken.
    same_first: whether the most probable id is the same. first_error: |log p - log q| of the reference's most probable
    id, NaN if the other row lacks it. shared: share of the reference's ids that the other row has.
    """

    row: Ints
    kl: Floats
    total_variation: Floats
    same_first: npt.NDArray[np.bool_]
    first_error: Floats
    shared: Floats


def row_differences(reference: SparseTargets, other: SparseTargets) -> RowDifferences:
    """The differences of all rows that have exact entries in both. Both have the same number of rows."""
    rows = np.flatnonzero((reference.exact_counts > 0) & (other.exact_counts > 0))
    if not len(rows):
        nothing = np.zeros(0)
        return RowDifferences(rows, nothing, nothing, np.zeros(0, bool), nothing, nothing)
    ours, theirs = _Exact.of(reference, rows), _Exact.of(other, rows)
    order = np.argsort(theirs.keys)
    at = order[np.minimum(np.searchsorted(theirs.keys[order], ours.keys), len(order) - 1)]
    found = theirs.keys[at] == ours.keys
    p, row = np.exp(ours.log_mass), ours.row
    q = np.where(found, np.exp(theirs.log_mass[at]), 0.0)

    def by_row(values: Floats) -> Floats:
        return np.asarray(np.bincount(row, weights=values, minlength=len(rows)), np.float64)

    smallest = np.full(len(rows), np.inf)
    np.minimum.at(smallest, theirs.row, np.exp(theirs.log_mass))
    rest_p, left = np.maximum(1 - by_row(p), 0.0), np.maximum(1 - by_row(q), LEAST)
    held = np.bincount(theirs.row, weights=np.exp(theirs.log_mass), minlength=len(rows))
    tail = np.maximum(1 - held, LEAST)  # of the other row: no id that it lacks has a part of what its ids have
    shared = _nearest(row, p, ~found, rest_p, left, smallest)
    lacks = left - by_row(shared) < left - tail
    q = np.where(found, q, np.where(lacks[row], _nearest(row, p, ~found, np.zeros(len(rows)), tail, smallest), shared))
    rest_q = np.maximum(1 - by_row(q), LEAST)
    kl = by_row(p * (ours.log_mass - np.log(np.maximum(q, LEAST))))
    kl += np.where(rest_p > LEAST, rest_p * np.log(np.maximum(rest_p, LEAST) / rest_q), 0.0)
    # The mass of a set of ids in the one less that in the other: no more than the total variation, whatever the set.
    most = np.where(found, q, np.minimum(smallest, tail)[row])
    error = np.full(len(rows), np.nan)
    first = found & ours.is_first
    error[row[first]] = np.abs(ours.log_mass[first] - theirs.log_mass[at[first]])
    return RowDifferences(
        rows,
        np.maximum(kl, 0.0),
        np.maximum(by_row(np.maximum(p - most, 0.0)), by_row(np.where(found, np.maximum(q - p, 0.0), 0.0))),
        reference.ids[reference.offsets[rows]] == other.ids[other.offsets[rows]],
        error,
        by_row(found.astype(np.float64)) / reference.exact_counts[rows],
    )


def _nearest(
    row: Ints, p: Floats, is_free: npt.NDArray[np.bool_], rest_p: Floats, left: Floats, most: Floats
) -> Floats:
    """The masses of free entries that are nearest to p, [entries]; 0 for all others.

    They share the mass `left` of their row with its rest, of mass rest_p, in the ratio of p, but none has more than
    `most` of its row. Without that limit, the ratio is the minimum of the divergence; those that exceed it have it.
    """
    limit = most[row]
    is_full = np.zeros(len(p), bool)
    q = np.zeros(len(p))
    for _ in range(PASSES):
        shares = is_free & ~is_full
        full = np.bincount(row, weights=np.where(is_full, limit, 0.0), minlength=len(left))
        mass = np.bincount(row, weights=np.where(shares, p, 0.0), minlength=len(left)) + rest_p
        scale = np.maximum(left - full, 0.0) / np.maximum(mass, LEAST)
        q = np.where(is_full, limit, np.where(shares, scale[row] * p, 0.0))
        exceeding = shares & (q > limit)
        if not exceeding.any():
            break
        is_full |= exceeding
    return q


class _Exact(NamedTuple):
    """The exact entries of some rows. row: place among these. keys: row and id in one number. log_mass: of rows whose
    masses sum to 1.
    """

    keys: Ints
    row: Ints
    log_mass: Floats
    is_first: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, targets: SparseTargets, rows: Ints) -> "_Exact":
        place = np.full(len(targets), -1, np.int64)
        place[rows] = np.arange(len(rows))
        rank, row = targets.rank_of_entry, place[targets.row_of_entry]
        chosen = (rank < np.repeat(targets.exact_counts, targets.counts)) & (row >= 0)
        rank, row = rank[chosen], row[chosen]
        logprobs = targets.logprobs[chosen].astype(np.float64)
        masses = np.bincount(row, weights=np.exp(logprobs), minlength=len(rows))
        total = np.maximum(masses + np.exp(targets.log_tail[rows].astype(np.float64)), LEAST)
        keys = (row << 32) | targets.ids[chosen].astype(np.int64)
        return cls(keys, row, logprobs - np.log(total)[row], rank == 0)
