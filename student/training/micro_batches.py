"""Which examples of a step go into which micro-batch of which rank."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from student.data.batches import Batches
from student.models.rows.packing import pack
from student.training.settings import RunSettings


class MicroBatch(NamedTuple):
    """The examples of a micro-batch, and the row of each, from 0. Examples of one row are neighbours."""

    examples: list[int]
    row_of: list[int]


def micro_batches_of_step(
    step: int, batches: Batches, run: RunSettings, rank: int, ranks: int, pack_to: int | None = None
) -> list[MicroBatch]:
    """Each of this rank's micro-batches of a step. pack_to: tokens of a packed row, if rows are packed.

    A pure function of the settings, the step and the sizes, so all ranks agree without communication.
    """
    examples = batches.order(step * run.batch_size, run.batch_size, run.seed)
    rows = run.micro_batch_of(ranks, pack_to)
    return divide(examples, batches.sizes[examples], rows, rank, ranks, pack_to)


def divide(
    examples: npt.NDArray[np.int64],
    sizes: npt.NDArray[np.int64],
    rows: int,
    rank: int,
    ranks: int,
    pack_to: int | None = None,
) -> list[MicroBatch]:
    """Each of this rank's micro-batches, at most `rows` rows in each. sizes: tokens of each example.

    A row is one example, or as many as fit into `pack_to` tokens: then all examples of all ranks are packed together,
    into a number of rows that is a multiple of the ranks. The sum over examples does not depend on the grouping.
    Rows are dealt out by length, the longest first: there is less padding, all ranks process similar lengths at the
    same time, and the first micro-batch needs the most memory. Every rank has the same number of micro-batches, some of
    which may have no examples.
    """
    if pack_to is None:
        row, count = np.empty(len(examples), np.int64), len(examples)
        row[np.argsort(-sizes, kind="stable")] = np.arange(count)
    else:
        packing = pack(sizes, pack_to, ranks)
        row, count = packing.row, packing.rows
    members: list[list[int]] = [[] for _ in range(count)]
    for example, number in zip(examples.tolist(), row.tolist(), strict=True):
        members[number].append(example)
    together = ranks * rows
    groups = [members[start : start + together][rank::ranks] for start in range(0, count, together)]
    return [
        MicroBatch([i for own in group for i in own], [row for row, own in enumerate(group) for _ in own])
        for group in groups
    ]
