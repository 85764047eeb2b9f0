"""Convert and rearrange sparse rows. Knows arrays only."""

from typing import Any

import numpy as np
import numpy.typing as npt

from cache.rows.level_grid import LOWEST_LOGPROB
from cache.rows.sparse_targets import SparseTargets


def rows_from_topk(ids: npt.NDArray[np.int64], logprobs: npt.NDArray[np.float32], vocab_size: int) -> SparseTargets:
    """Return rows from ids [n, k] and normalised log-probabilities [n, k], which descend along k.

    Entries below LOWEST_LOGPROB are left out. The tail is 1 minus the mass of the entries, or 0 if a row has an entry
    for the whole vocabulary.
    """
    is_entry = logprobs >= LOWEST_LOGPROB
    counts = is_entry.sum(axis=1)
    mass = np.where(is_entry, np.exp(logprobs.astype(np.float64)), 0.0).sum(axis=1)
    tail = np.where(counts >= vocab_size, 0.0, np.clip(1.0 - mass, 0.0, 1.0))
    with np.errstate(divide="ignore"):
        log_tail = np.log(tail).astype(np.float32)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    # Rounding can move the largest log-probability above 0.
    values = np.minimum(logprobs[is_entry], 0.0).astype(np.float32)
    return SparseTargets(offsets, ids[is_entry].astype(np.uint32), values, log_tail)


def cut_to_nucleus(rows: SparseTargets, mass: float) -> SparseTargets:
    """Cut each row to its smallest head with at least `mass`; a row with less mass stays whole.

    The tail of a cut row is 1 minus the mass of its head.
    """
    p = np.exp(rows.logprobs.astype(np.float64))
    running = np.cumsum(p)
    ends = np.concatenate([np.zeros(1), running])[rows.offsets]
    before = running - p - np.repeat(ends[:-1], rows.counts)
    kept = before < mass
    counts = np.add.reduceat(np.append(kept, False), rows.offsets[:-1]) * (rows.counts > 0)
    head_mass = np.add.reduceat(np.append(np.where(kept, p, 0.0), 0.0), rows.offsets[:-1]) * (rows.counts > 0)
    with np.errstate(divide="ignore"):
        log_tail = np.log(np.clip(1.0 - head_mass, 0.0, 1.0)).astype(np.float32)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    is_cut = counts < rows.counts
    return SparseTargets(offsets, rows.ids[kept], rows.logprobs[kept], np.where(is_cut, log_tail, rows.log_tail))


def scatter_rows(rows: SparseTargets, positions: npt.NDArray[np.int64], n: int) -> SparseTargets:
    """Return n rows, of which positions[i] (ascending) is row i of `rows`. The other rows are empty."""
    counts = np.zeros(n, np.int64)
    counts[positions] = rows.counts

    def spread(values: npt.NDArray[Any] | None, fill: float) -> Any:
        if values is None:
            return None
        result = np.full((n, *values.shape[1:]), fill, values.dtype)
        result[positions] = values
        return result

    return SparseTargets(
        np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]),
        rows.ids,
        rows.logprobs,
        spread(rows.log_tail, 0),
        spread(rows.exact, 0),
        spread(rows.entropy, np.nan),
        spread(rows.log_normalizers, np.nan),
    )


def take_rows(rows: SparseTargets, order: npt.NDArray[np.int64]) -> SparseTargets:
    """Return the rows order[0], order[1], ... order: int64 [m]. Consecutive rows are views."""
    if len(order) and (np.diff(order) == 1).all():
        return rows.rows(int(order[0]), int(order[-1]) + 1)
    counts = rows.counts[order]
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    entries = np.arange(offsets[-1]) + np.repeat(rows.offsets[order] - offsets[:-1], counts)
    return SparseTargets(
        offsets,
        rows.ids[entries],
        rows.logprobs[entries],
        rows.log_tail[order],
        None if rows.exact is None else rows.exact[order],
        None if rows.entropy is None else rows.entropy[order],
        None if rows.log_normalizers is None else rows.log_normalizers[order],
    )
