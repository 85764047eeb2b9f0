"""The weighted sum of the target rows of several teachers, in numpy alone.

An entry is packed into one uint64, and equal ids are brought together by sorting. numpy sorts short rows of integers 30
times faster than it sorts by two columns.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cache.rows.sparse_targets import SparseTargets

Keys = npt.NDArray[np.uint64]

# Pads a row. No entry is so large, because no log-probability is NaN.
ABSENT = np.uint64(2**64 - 1)
VALUE_BITS = np.uint64(2**31 - 1)
# Exact entries have some mass, so the tail never has all of it. Rounding may not raise its logarithm above this.
MAX_LOG_TAIL = -1e-30


def average_rows(targets: Sequence[SparseTargets], shares: npt.NDArray[np.float64], unbiased: bool) -> SparseTargets:
    """Compute the weighted sum of the teachers' rows, n each, as student.data.averaged_stores.average describes it.

    shares: float64 [teachers], summing to 1. unbiased: the targets have sampled entries too.
    """
    keys = np.concatenate([_keys_by_id(each, share) for each, share in zip(targets, shares, strict=True)], axis=1)
    keys[~np.logical_and.reduce([each.counts > 0 for each in targets])] = ABSENT
    keys.sort(axis=1)
    ids = (keys >> np.uint64(32)).astype(np.uint32)
    is_entry = keys != ABSENT
    # Entries of the same id are adjacent now, at most one of each teacher. The first of them gets their sum.
    is_first = is_entry.copy()
    is_first[:, 1:] &= ids[:, 1:] != ids[:, :-1]
    repeats = _find_repeats(ids, is_entry, len(targets))
    log_masses = _log_probs(keys).ravel()
    sums = log_masses.copy()
    for first, other in repeats:
        # This is logaddexp; numpy's own function takes nine times as long.
        larger, smaller = np.maximum(sums[first], log_masses[other]), np.minimum(sums[first], log_masses[other])
        sums[first] = larger + np.log1p(np.exp(smaller - larger))
    tail = np.zeros(len(keys))
    for share, each in zip(shares, targets, strict=True):
        tail += share * np.exp(each.log_tail, dtype=np.float64)
    exact = None
    if unbiased:
        exact, exact_mass = _exact_in_all(keys, is_entry, log_masses, repeats, len(targets))
        tail += np.where(is_first & ~exact, exact_mass, 0.0).sum(axis=1)
    return _sort_by_log_prob(ids, sums.reshape(keys.shape), is_first, exact, tail)


def _find_repeats(
    ids: npt.NDArray[np.uint32], is_entry: npt.NDArray[np.bool_], teachers: int
) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Find flat indices of entries, and of entries of the same id that stand 1, 2, ... teachers - 1 columns later."""
    repeats = []
    for step in range(1, teachers):
        is_same = np.zeros_like(is_entry)
        is_same[:, :-step] = (ids[:, step:] == ids[:, :-step]) & is_entry[:, step:]
        first = np.flatnonzero(is_same)
        repeats.append((first, first + step))
    return repeats


def _exact_in_all(
    keys: Keys,
    is_entry: npt.NDArray[np.bool_],
    log_masses: npt.NDArray[np.float32],
    repeats: Sequence[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]],
    teachers: int,
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Of each entry, whether all teachers have it as an exact one; and the summed mass of its exact entries."""
    is_exact = (is_entry & (keys >> np.uint64(31) & np.uint64(1) == 0)).ravel()
    exact_mass = np.where(is_exact, np.exp(log_masses, dtype=np.float64), 0.0)
    counts, mass = is_exact.astype(np.int64), exact_mass.copy()
    for first, other in repeats:
        counts[first] += is_exact[other]
        mass[first] += exact_mass[other]
    return (counts == teachers).reshape(keys.shape), mass.reshape(keys.shape)


def _keys_by_id(targets: SparseTargets, share: float) -> Keys:
    """Entries as sortable keys, [rows, max entries]. From the highest bit: id, 1 if sampled, bits of |log(share p)|."""
    counts = targets.counts
    keys = targets.ids.astype(np.uint64) << np.uint64(32) | _log_prob_bits(
        targets.logprobs + np.float32(math.log(share))
    )
    if targets.exact is not None:
        sampled = targets.rank_of_entry >= np.repeat(targets.exact, counts)
        keys |= sampled.astype(np.uint64) << np.uint64(31)
    width = int(counts.max(initial=0))
    padded = np.full((len(targets), width), ABSENT)
    padded[np.arange(width) < counts[:, None]] = keys
    return padded


def _sort_by_log_prob(
    ids: npt.NDArray[np.uint32],
    logprobs: npt.NDArray[np.float32],
    is_entry: npt.NDArray[np.bool_],
    exact: npt.NDArray[np.bool_] | None,
    tail: npt.NDArray[np.float64],
) -> SparseTargets:
    """The entries, sorted within each row: exact ones first, then by falling log-probability, then by id."""
    keys = np.asarray(_log_prob_bits(logprobs) << np.uint64(32) | ids)
    if exact is not None:
        keys |= (~exact).astype(np.uint64) << np.uint64(63)
    keys[~is_entry] = ABSENT
    keys.sort(axis=1)
    counts = np.count_nonzero(is_entry, axis=1)
    exact_counts = counts if exact is None else np.count_nonzero(is_entry & exact, axis=1)
    keys = keys[np.arange(keys.shape[1]) < counts[:, None]]
    with np.errstate(divide="ignore"):
        log_tail = np.where(exact_counts > 0, np.minimum(np.log(tail), MAX_LOG_TAIL), 0.0)
    return SparseTargets(
        np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]),
        keys.astype(np.uint32),
        _log_probs(keys >> np.uint64(32)),
        log_tail.astype(np.float32),
        None if exact is None else exact_counts,
    )


def _log_prob_bits(logprobs: npt.NDArray[np.float32]) -> Keys:
    """31 bits that sort log-probabilities from 0 down. The bits of positive float32 numbers sort like the numbers."""
    return np.asarray(np.abs(np.minimum(logprobs, 0)).view(np.uint32).astype(np.uint64))


def _log_probs(keys: Keys) -> npt.NDArray[np.float32]:
    """Log-probabilities from the low 31 bits, float32; meaningless for an ABSENT key."""
    return -(keys & VALUE_BITS).astype(np.uint32).view(np.float32)
