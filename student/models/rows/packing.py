"""Several examples in one row: the row and the position of each, and the position_ids that keep them apart."""

import heapq
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cache.errors import InputError


@dataclass(frozen=True, slots=True)
class Packing:
    """The positions of n examples in `rows` rows: example i begins at token offset[i] of row[i].

    lengths, row, offset: int64 [n]. width: tokens of the fullest row. The fullest row is the first one; rows at the end
    may be empty.
    """

    lengths: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]
    offset: npt.NDArray[np.int64]
    rows: int
    width: int


def pack(lengths: Sequence[int] | npt.NDArray[np.int64], row_length: int, multiple: int = 1) -> Packing:
    """Divide examples among rows of at most `row_length` tokens: as few rows as best fit needs, filled equally.

    Best fit decreasing needs at most 11/9 of the minimum number of rows + 1 (Johnson et al. 1974). This number is
    rounded up to a multiple of `multiple`. Each example, the longest first, then goes into the emptiest row (longest
    processing time first, Graham 1969). So the fullest row is hardly longer than the mean, and padding to it is small.
    Where this exceeds a row, the rows of best fit are taken. Equal lengths keep their order.

    Raises InputError, with the index, if an example is empty or longer than a row.
    """
    sizes = np.asarray(lengths, np.int64)
    wrong = np.flatnonzero((sizes < 1) | (sizes > row_length))
    if len(wrong):
        raise InputError(
            f"example {wrong[0]} has {sizes[wrong[0]]} tokens, but a row takes 1 to {row_length}; use longer rows, or "
            "leave the example out"
        )
    longest_first = [(int(i), int(sizes[i])) for i in np.argsort(-sizes, kind="stable")]
    row, rows = _best_fit(longest_first, row_length)
    rows = -(-max(rows, 1) // multiple) * multiple
    equal = _emptiest_first(longest_first, rows)
    if np.bincount(equal, weights=sizes, minlength=rows).max() <= row_length:
        row = equal
    return place(sizes, row, rows)


def place(lengths: Sequence[int] | npt.NDArray[np.int64], row: npt.NDArray[np.int64], rows: int) -> Packing:
    """The packing of examples in chosen rows. row: int64 [n], below `rows`. The fullest row becomes the first."""
    sizes = np.asarray(lengths, np.int64)
    filled = np.bincount(row, weights=sizes, minlength=rows).astype(np.int64)
    number = np.empty(rows, np.int64)
    number[np.argsort(-filled, kind="stable")] = np.arange(rows)
    row = number[row]
    return Packing(sizes, row, _offsets(sizes, row), rows, int(filled.max()))


def positions(packing: Packing) -> npt.NDArray[np.int64]:
    """Position of each token within its example (position_ids), int64 [rows, width].

    A sequence begins where they do not rise by 1 (transformers.masking_utils.find_packed_sequence_indices). Padding
    forms sequences of its own, none longer than the longest example. So no position exceeds those of real tokens, and a
    model with 1,024 learned positions can read rows of any length.
    """
    width = packing.width
    indices = np.arange(packing.rows * width)
    filled = np.bincount(packing.row, weights=packing.lengths, minlength=packing.rows).astype(np.int64)
    padded = np.flatnonzero(filled < width)
    begins = np.zeros_like(indices)
    for starts in (packing.row * width + packing.offset, padded * width + filled[padded]):
        begins[starts] = starts
    since_begin = indices - np.maximum.accumulate(begins)
    return np.asarray(since_begin % packing.lengths.max(initial=1)).reshape(packing.rows, width)


def _best_fit(longest_first: list[tuple[int, int]], row_length: int) -> tuple[npt.NDArray[np.int64], int]:
    """The row of each example, int64 [n], and the number of rows: each goes into the fullest row with enough room."""
    row = np.zeros(len(longest_first), np.int64)
    room: list[tuple[int, int]] = []  # (free tokens, row), in ascending order
    rows = 0
    for i, size in longest_first:
        at = bisect_left(room, (size, 0))
        if at < len(room):
            free, own = room.pop(at)
        else:
            free, own, rows = row_length, rows, rows + 1
        row[i] = own
        insort(room, (free - size, own))
    return row, rows


def _emptiest_first(longest_first: list[tuple[int, int]], rows: int) -> npt.NDArray[np.int64]:
    """The row of each example, int64 [n]: each goes into the emptiest row."""
    row = np.zeros(len(longest_first), np.int64)
    filled = [(0, number) for number in range(rows)]
    for i, size in longest_first:
        tokens, row[i] = filled[0]
        heapq.heapreplace(filled, (tokens + size, int(row[i])))
    return row


def _offsets(sizes: npt.NDArray[np.int64], row: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Where each example begins in its row, int64 [n]: in every row, examples lie in their order."""
    by_row = np.argsort(row, kind="stable")
    ends = np.cumsum(sizes[by_row])
    starts = ends - sizes[by_row]
    is_first = np.diff(row[by_row], prepend=-1) != 0
    begins = np.maximum.accumulate(np.where(is_first, starts, 0))
    offset = np.empty_like(sizes)
    offset[by_row] = starts - begins
    return offset
