"""Several examples in one row: the position of each, and the position_ids that keep them apart."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cache.errors import InputError


@dataclass(frozen=True, slots=True)
class Packing:
    """The positions of n examples in `rows` rows: example i begins at token offset[i] of row[i].

    lengths, row, offset: int64 [n].
    """

    lengths: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]
    offset: npt.NDArray[np.int64]
    rows: int


def pack(lengths: Sequence[int] | npt.NDArray[np.int64], row_length: int) -> Packing:
    """Pack examples into rows by first-fit decreasing: at most 11/9 of the minimum number of rows + 6/9 (Dósa 2007).

    The examples are sorted by length, the longest first, equal ones in their order. Each goes into the first row with
    enough room. Raises InputError, with the index, if an example is empty or longer than a row.
    """
    sizes = np.asarray(lengths, np.int64)
    wrong = np.flatnonzero((sizes < 1) | (sizes > row_length))
    if len(wrong):
        raise InputError(
            f"example {wrong[0]} has {sizes[wrong[0]]} tokens, but a row takes 1 to {row_length}; use longer rows, or "
            "leave the example out"
        )
    free = np.full(len(sizes), row_length)
    row, offset = np.zeros_like(sizes), np.zeros_like(sizes)
    for i in np.argsort(-sizes, kind="stable"):
        row[i] = first_fit = int(np.argmax(free >= sizes[i]))
        offset[i] = row_length - free[first_fit]
        free[first_fit] -= sizes[i]
    return Packing(sizes, row, offset, int(np.count_nonzero(free < row_length)))


def positions(packing: Packing, row_length: int) -> npt.NDArray[np.int64]:
    """Position of each token within its example (position_ids), int64 [rows, row_length].

    A sequence begins where they do not rise by 1 (transformers.masking_utils.find_packed_sequence_indices). Padding
    forms sequences of its own, none longer than the longest example. So no position exceeds those of real tokens, and a
    model with 1,024 learned positions can read rows of any length.
    """
    indices = np.arange(packing.rows * row_length)
    filled = np.bincount(packing.row, weights=packing.lengths, minlength=packing.rows).astype(np.int64)
    padded = np.flatnonzero(filled < row_length)
    begins = np.zeros_like(indices)
    for starts in (packing.row * row_length + packing.offset, padded * row_length + filled[padded]):
        begins[starts] = starts
    since_begin = indices - np.maximum.accumulate(begins)
    return np.asarray(since_begin % packing.lengths.max(initial=1)).reshape(packing.rows, row_length)
