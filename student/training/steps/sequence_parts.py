"""The part of a micro-batch that one of several ranks computes which share its sequences."""

from dataclasses import replace

import torch
import torch.distributed as dist
from torch.nn import functional

from student.losses.batch import Batch
from student.models.attention.sequence_parallel import SequenceGroup


def part_of(batch: Batch, group: SequenceGroup | None) -> Batch:
    """This rank's tokens, and the rows with a loss among them. Sequences are padded to a multiple of the ranks.

    Positions of the whole sequence are given to the model. Without a group, the batch itself.
    """
    if group is None:
        return batch
    ids = batch.inputs["input_ids"]
    count, length = ids.shape
    own = -(-length // group.ranks)
    padded = own * group.ranks - length
    positions = batch.inputs.get("position_ids", torch.arange(length).expand(count, length))
    # What is added goes on after the last position: a position that starts again would be another example.
    more = positions[:, -1:] + torch.arange(1, padded + 1)
    start = group.rank * own
    inputs = {
        "input_ids": functional.pad(ids, (0, padded))[:, start : start + own].contiguous(),
        "position_ids": torch.cat([positions, more], 1)[:, start : start + own].contiguous(),
    }
    row, place = batch.rows // length, batch.rows % length
    is_own = (place >= start) & (place < start + own)
    return replace(
        batch,
        inputs=inputs,
        rows=row[is_own] * own + place[is_own] - start,
        labels=batch.labels[is_own],
        ids=batch.ids[is_own],
        log_p=tuple(each[is_own] for each in batch.log_p),
        log_tail=tuple(each[is_own] for each in batch.log_tail),
        entropy=batch.entropy[is_own],
        weights=batch.weights[:, is_own],
    )


def data_rank(group: SequenceGroup | None) -> tuple[int, int]:
    """Which share of the examples this rank has, and how many shares there are. Ranks of a group have the same one."""
    return (dist.get_rank(), dist.get_world_size()) if group is None else (group.number, group.groups)
