"""Several examples in one row: where each goes, the positions that keep them apart, and whether a model heeds these."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cache.errors import InputError


@dataclass(frozen=True, slots=True)
class Packing:
    """Where n examples of these lengths lie in `rows` rows: example i from token offset[i] of row[i] on.

    lengths, row, offset: int64 [n].
    """

    lengths: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]
    offset: npt.NDArray[np.int64]
    rows: int


def pack(lengths: Sequence[int] | npt.NDArray[np.int64], row_length: int) -> Packing:
    """First-fit decreasing: at most 11/9 of the fewest rows possible and 6/9 (Dósa 2007).

    The longest comes first, of equal ones the earliest, each into the first row with room for it. Raises InputError
    naming an example that is empty or longer than a row.
    """
    sizes = np.asarray(lengths, np.int64)
    wrong = np.flatnonzero((sizes < 1) | (sizes > row_length))
    if len(wrong):
        raise InputError(
            f"example {wrong[0]} has {sizes[wrong[0]]} tokens; a row takes 1 to {row_length}: make it longer, or leave "
            "the example out"
        )
    free = np.full(len(sizes), row_length)
    row, offset = np.zeros_like(sizes), np.zeros_like(sizes)
    for i in np.argsort(-sizes, kind="stable"):
        row[i] = found = int(np.argmax(free >= sizes[i]))
        offset[i] = row_length - free[found]
        free[found] -= sizes[i]
    return Packing(sizes, row, offset, int(np.count_nonzero(free < row_length)))


def positions(packing: Packing, row_length: int) -> npt.NDArray[np.int64]:
    """Place of each token within its example, int64 [rows, row_length].

    Where they do not rise by 1 a sequence begins (transformers.masking_utils.find_packed_sequence_indices). Padding
    makes sequences of its own, none longer than the longest example: so no position is beyond those of real tokens,
    and a model of 1,024 learned positions can read rows of any length.
    """
    places = np.arange(packing.rows * row_length)
    filled = np.bincount(packing.row, weights=packing.lengths, minlength=packing.rows).astype(np.int64)
    padded = np.flatnonzero(filled < row_length)
    begins = np.zeros_like(places)
    for starts in (packing.row * row_length + packing.offset, padded * row_length + filled[padded]):
        begins[starts] = starts
    since = places - np.maximum.accumulate(begins)
    return np.asarray(since % packing.lengths.max(initial=1)).reshape(packing.rows, row_length)
