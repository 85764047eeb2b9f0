"""A student whose forward pass ends in a loss."""

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from student.losses.batch import Batch
from student.losses.fused_loss import block_rows, checkpointed_loss, fused_loss
from student.losses.loss_terms import make_loss_terms
from student.losses.weighted_objectives import WeightedObjectives
from student.models.model_parts import (
    forward_replaced,
    head_of,
    hidden_states,
    is_one_matrix,
    logits_width,
    transform_of,
)


class LossSums(NamedTuple):
    """The objective of a micro-batch (with gradient), and each term's part of it, [terms], in nats.

    A tuple, because ZeRO-3 looks for the tensors in what a module returns.
    """

    objective: Tensor
    parts: Tensor


class LossModel(nn.Module):
    """The head runs only on rows that carry a loss, and as a call of the head's own module: ZeRO-3 gathers its weight.

    A head that is one matrix takes the fused loss; one with adapters is checkpointed.
    """

    def __init__(self, model: Any, objectives: WeightedObjectives) -> None:
        super().__init__()
        self.model = model
        self.objectives = objectives
        self._transform = transform_of(model)
        self._width = logits_width(model)

    def forward(self, batch: Batch, coefficients: Tensor) -> LossSums:
        """coefficients: float32 [terms], what each term's rows are multiplied by."""
        hidden = hidden_states(self.model, batch.inputs).index_select(0, batch.rows)
        terms = make_loss_terms(batch, self.objectives, coefficients)
        head = head_of(self.model)
        rows = block_rows(self._width, hidden.device)
        if not is_one_matrix(head):
            blocks = _greatest(-(-len(hidden) // rows), hidden.device)
            return LossSums(*checkpointed_loss(head, hidden, self._transform, terms, rows, max(blocks, 1)))

        def forward(states: Tensor) -> tuple[Tensor, Tensor]:
            return fused_loss(states, head.weight, head.bias, self._transform, terms, rows)

        with forward_replaced(head, forward):
            return LossSums(*head(hidden))


def _greatest(count: int, device: torch.device) -> int:
    """The greatest of the ranks' numbers; they come here together."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return count
    counts = torch.tensor(count, device=device)
    dist.all_reduce(counts, dist.ReduceOp.MAX)
    return int(counts)
