"""Rows of several teachers summed entry by entry, the loops all in numpy: its sorts of integers.

An entry is one uint64. numpy sorts short rows of these 30 times faster than it makes an order of two columns.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cache.rows.sparse_targets import SparseTargets

Keys = npt.NDArray[np.uint64]

# Fills a row up; no entry is so large, since no log-probability is NaN.
ABSENT = np.uint64(2**64 - 1)
VALUE_BITS = np.uint64(2**31 - 1)
# Exact entries never leave all of the mass to the tail; this is the closest that a rounded sum may come to it.
MOST_LOG_TAIL = -1e-30


def merge(targets: Sequence[SparseTargets], shares: npt.NDArray[np.float64], unbiased: bool) -> SparseTargets:
    """The weighted sum of the teachers' rows, as student.data.averaged_stores.average says; n rows each.

    shares: float64 [teachers], summing to 1. unbiased: the targets have sampled entries too.
    """
    keys = np.concatenate([_by_id(one, share) for one, share in zip(targets, shares, strict=True)], axis=1)
    keys[~np.logical_and.reduce([one.counts > 0 for one in targets])] = ABSENT
    keys.sort(axis=1)
    ids = (keys >> np.uint64(32)).astype(np.uint32)
    present = keys != ABSENT
    # Entries of one id follow each other now, one for each teacher that holds it, and the first takes their sum.
    first = present.copy()
    first[:, 1:] &= ids[:, 1:] != ids[:, :-1]
    repeats = []
    for step in range(1, len(targets)):
        same = np.zeros_like(present)
        same[:, :-step] = (ids[:, step:] == ids[:, :-step]) & present[:, step:]
        at = np.flatnonzero(same)
        repeats.append((at, at + step))
    own = _values(keys).ravel()
    total = own.copy()
    for at, other in repeats:
        # logaddexp, of which numpy's own takes nine times as long.
        larger, smaller = np.maximum(total[at], own[other]), np.minimum(total[at], own[other])
        total[at] = larger + np.log1p(np.exp(smaller - larger))
    tail = np.zeros(len(keys))
    for share, one in zip(shares, targets, strict=True):
        tail += share * np.exp(one.log_tail, dtype=np.float64)
    exact = None
    if unbiased:
        exact_here = (present & (keys >> np.uint64(31) & np.uint64(1) == 0)).ravel()
        mass_here = np.where(exact_here, np.exp(own, dtype=np.float64), 0.0)
        votes, mass = exact_here.astype(np.int64), mass_here.copy()
        for at, other in repeats:
            votes[at] += exact_here[other]
            mass[at] += mass_here[other]
        exact = (votes == len(targets)).reshape(keys.shape)
        tail += np.where(first & ~exact, mass.reshape(keys.shape), 0.0).sum(axis=1)
    return _by_value(ids, total.reshape(keys.shape), first, exact, tail)


def _by_id(targets: SparseTargets, share: float) -> Keys:
    """Entries as [rows, most entries]: from the highest bit, the id, 1 where sampled, and the bits of |log(w p)|."""
    counts = targets.counts
    keys = targets.ids.astype(np.uint64) << np.uint64(32) | _bits(targets.logprobs + np.float32(math.log(share)))
    if targets.exact is not None:
        sampled = targets.rank_of_entry >= np.repeat(targets.exact, counts)
        keys |= sampled.astype(np.uint64) << np.uint64(31)
    width = int(counts.max(initial=0))
    padded = np.full((len(targets), width), ABSENT)
    padded[np.arange(width) < counts[:, None]] = keys
    return padded


def _by_value(
    ids: npt.NDArray[np.uint32],
    logprobs: npt.NDArray[np.float32],
    held: npt.NDArray[np.bool_],
    exact: npt.NDArray[np.bool_] | None,
    tail: npt.NDArray[np.float64],
) -> SparseTargets:
    """The entries held, each row in its order: from the highest bit, 1 where sampled, |log p|, the id."""
    keys = np.asarray(_bits(logprobs) << np.uint64(32) | ids)
    if exact is not None:
        keys |= (~exact).astype(np.uint64) << np.uint64(63)
    keys[~held] = ABSENT
    keys.sort(axis=1)
    counts = np.count_nonzero(held, axis=1)
    exact_counts = counts if exact is None else np.count_nonzero(held & exact, axis=1)
    keys = keys[np.arange(keys.shape[1]) < counts[:, None]]
    with np.errstate(divide="ignore"):
        log_tail = np.where(exact_counts > 0, np.minimum(np.log(tail), MOST_LOG_TAIL), 0.0)
    return SparseTargets(
        np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]),
        keys.astype(np.uint32),
        _values(keys >> np.uint64(32)),
        log_tail.astype(np.float32),
        None if exact is None else exact_counts,
    )


def _bits(logprobs: npt.NDArray[np.float32]) -> Keys:
    """31 bits that order log-probabilities from 0 down: those of a positive float32 order as the float does."""
    return np.asarray(np.abs(np.minimum(logprobs, 0)).view(np.uint32).astype(np.uint64))


def _values(keys: Keys) -> npt.NDArray[np.float32]:
    """Log-probabilities in the low 31 bits, float32; what an ABSENT key gives means nothing."""
    return -(keys & VALUE_BITS).astype(np.uint32).view(np.float32)
