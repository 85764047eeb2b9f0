"""What engines give, to rows in their places. Arrays only."""

from typing import Any

import numpy as np
import numpy.typing as npt

from cache.rows.level_grid import LOWEST_LOGPROB
from cache.rows.sparse_targets import SparseTargets


def rows_from_topk(ids: npt.NDArray[np.int64], logprobs: npt.NDArray[np.float32], vocab_size: int) -> SparseTargets:
    """Rows from ids [n, k] and normalised log-probabilities [n, k], falling along k.

    Entries at -inf or below LOWEST_LOGPROB, which no float tells from it, are left out.

    The tail is what the entries leave of 1, and nothing where they are the whole vocabulary.
    """
    held = logprobs >= LOWEST_LOGPROB
    counts = held.sum(axis=1)
    mass = np.where(held, np.exp(logprobs.astype(np.float64)), 0.0).sum(axis=1)
    tail = np.where(counts >= vocab_size, 0.0, np.clip(1.0 - mass, 0.0, 1.0))
    with np.errstate(divide="ignore"):
        log_tail = np.log(tail).astype(np.float32)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    # Rounding may leave the largest log-probability a hair above 0.
    values = np.minimum(logprobs[held], 0.0).astype(np.float32)
    return SparseTargets(offsets, ids[held].astype(np.uint32), values, log_tail)


def cut_to_nucleus(rows: SparseTargets, mass: float) -> SparseTargets:
    """The smallest head of each row that holds `mass`, or the whole row where it holds less.

    What is cut goes to the tail: 1 less what is kept.
    """
    p = np.exp(rows.logprobs.astype(np.float64))
    running = np.cumsum(p)
    ends = np.concatenate([np.zeros(1), running])[rows.offsets]
    before = running - p - np.repeat(ends[:-1], rows.counts)
    kept = before < mass
    counts = np.add.reduceat(np.append(kept, False), rows.offsets[:-1]) * (rows.counts > 0)
    held = np.add.reduceat(np.append(np.where(kept, p, 0.0), 0.0), rows.offsets[:-1]) * (rows.counts > 0)
    with np.errstate(divide="ignore"):
        log_tail = np.log(np.clip(1.0 - held, 0.0, 1.0)).astype(np.float32)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    cut = counts < rows.counts
    return SparseTargets(offsets, rows.ids[kept], rows.logprobs[kept], np.where(cut, log_tail, rows.log_tail))


def scatter_rows(rows: SparseTargets, places: npt.NDArray[np.int64], n: int) -> SparseTargets:
    """`rows` as rows places[0], places[1], ... (rising) of n rows; the others are empty."""
    counts = np.zeros(n, np.int64)
    counts[places] = rows.counts

    def spread(values: npt.NDArray[Any] | None, fill: float) -> Any:
        if values is None:
            return None
        spread = np.full((n, *values.shape[1:]), fill, values.dtype)
        spread[places] = values
        return spread

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
    """Rows order[0], order[1], ... int64 [m]."""
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
