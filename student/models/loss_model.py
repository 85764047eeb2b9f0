"""LossModel: a student whose forward pass ends in a loss."""

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from student.losses.batch import Batch
from student.losses.head.fused_loss import block_rows, checkpointed_loss, fused_loss
from student.losses.head.logits import forward_replaced
from student.losses.loss_terms import make_loss_terms
from student.losses.weighted_objectives import WeightedObjectives
from student.models.model_parts import (
    head_of,
    hidden_states,
    is_one_matrix,
    logits_width,
    transform_of,
)


class LossSums(NamedTuple):
    """The objective of a micro-batch (with gradient), and each term's part of it, [terms], in nats.

    learned: float32 [2], how many rows `min_student_entropy` kept, and about how many it decided.
    A tuple, because ZeRO-3 searches the output of a module for tensors.
    """

    objective: Tensor
    parts: Tensor
    learned: Tensor


class LossModel(nn.Module):
    """A student whose forward pass returns LossSums. Its head computes only rows with a loss.

    The head's own module is called, so that ZeRO-3 gathers its weight. A head of one matrix uses the fused loss, a head
    with adapters the checkpointed one.
    """

    def __init__(self, model: Any, objectives: WeightedObjectives) -> None:
        super().__init__()
        self.model = model
        self.objectives = objectives
        self._transform = transform_of(model)
        self._width = logits_width(model)

    def forward(self, batch: Batch, coefficients: Tensor) -> LossSums:
        """The loss of a micro-batch. coefficients: float32 [terms], factors of the row weights of each term."""
        hidden = hidden_states(self.model, batch.inputs).index_select(0, batch.rows)
        learned = torch.zeros(2, device=hidden.device)
        terms = make_loss_terms(batch, self.objectives, coefficients, learned)
        head = head_of(self.model)
        rows = block_rows(self._width, hidden.device)
        if not is_one_matrix(head):
            blocks = _max_over_ranks(-(-len(hidden) // rows), hidden.device)
            sums = checkpointed_loss(head, hidden, self._transform, terms, rows, max(blocks, 1))
            return LossSums(*sums, learned)

        def forward(states: Tensor) -> tuple[Tensor, Tensor]:
            return fused_loss(states, head.weight, head.bias, self._transform, terms, rows)

        with forward_replaced(head, forward):
            total, parts = head(hidden)
        return LossSums(total, parts, learned)


def _max_over_ranks(count: int, device: torch.device) -> int:
    """The largest count of all ranks. Every rank must call it."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return count
    counts = torch.tensor(count, device=device)
    dist.all_reduce(counts, dist.ReduceOp.MAX)
    return int(counts)
