"""Rectangles of top-k log-probabilities, as engines give them, to SparseTargets. Arrays only."""

import numpy as np
import numpy.typing as npt

from cache.grid import LOWEST_LOGPROB
from cache.targets import SparseTargets, concatenate, empty_targets


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


def nucleus(rows: SparseTargets, mass: float) -> SparseTargets:
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


def place_rows(rows: SparseTargets, first_row: int, n: int) -> SparseTargets:
    """`rows` as rows first_row, first_row + 1, ... of n rows; the others are empty."""
    return concatenate([empty_targets(first_row), rows, empty_targets(n - first_row - len(rows))])
