"""Which examples go into which micro-batch of which rank."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from student.models.rows.packing import pack


class MicroBatch(NamedTuple):
    """The examples of a micro-batch, and the row of each, from 0. Examples of one row are neighbours."""

    examples: list[int]
    row_of: list[int]


class MicroBatchLimit(NamedTuple):
    """What bounds a micro-batch of one rank: rows, or positions with their padding. One of them is None."""

    rows: int | None
    tokens: int | None

    def rows_of(self, longest: int) -> int:
        """The number of rows, at least 1. longest: tokens of the longest one."""
        return self.rows if self.rows is not None else max(1, (self.tokens or 0) // max(longest, 1))


def divide(
    examples: npt.NDArray[np.int64],
    sizes: npt.NDArray[np.int64],
    limit: MicroBatchLimit,
    rank: int,
    ranks: int,
    pack_to: int | None = None,
) -> list[MicroBatch]:
    """Each of this rank's micro-batches, within the limit. sizes: tokens of each example.

    A row is one example, or as many as fit into `pack_to` tokens: then all examples of all ranks are packed together,
    into a number of rows that is a multiple of the ranks. The sum over examples does not depend on the grouping.
    Rows are dealt out by length, the longest first: there is less padding, all ranks process similar lengths at the
    same time, and the first micro-batch needs the most memory. Every rank has the same number of micro-batches, some of
    which may have no examples.
    """
    if pack_to is None:
        row, count = np.empty(len(examples), np.int64), len(examples)
        row[np.argsort(-sizes, kind="stable")] = np.arange(count)
        lengths = -np.sort(-sizes)
    else:
        packing = pack(sizes, pack_to, ranks)
        row, count = packing.row, packing.rows
        lengths = np.full(count, packing.width)
    members: list[list[int]] = [[] for _ in range(count)]
    for example, number in zip(examples.tolist(), row.tolist(), strict=True):
        members[number].append(example)
    groups, start = [], 0
    while start < count:
        together = ranks * limit.rows_of(int(lengths[start]))
        groups.append(members[start : start + together][rank::ranks])
        start += together
    return [
        MicroBatch([i for own in group for i in own], [row for row, own in enumerate(group) for _ in own])
        for group in groups
    ]
