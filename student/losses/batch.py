"""Batch: the tensors of a micro-batch."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """A micro-batch: the inputs of a model, and its R rows with a loss.

    inputs: arguments of the model, int64 [B, L]. rows: int64 [R], positions in its flattened output, [B * L].
    labels: int64 [R], the token (or class) that follows in the example; -1 where unknown.
    ids: int64 [R, K]. log_p, log_tail: for each temperature of the objectives, float32 [R, K] (-inf where padded) and
        [R].
    entropy: float32 [R], of the teacher's distribution, NaN where unknown. weights: float32 [terms, R].
    without_loss: number of examples without a row.
    """

    inputs: dict[str, Tensor]
    rows: Tensor
    labels: Tensor
    ids: Tensor
    log_p: tuple[Tensor, ...]
    log_tail: tuple[Tensor, ...]
    entropy: Tensor
    weights: Tensor
    without_loss: int = 0

    @property
    def positions(self) -> int:
        """Token positions that the model computes, padding included: those of all inputs of token ids."""
        return sum(ids.numel() for name, ids in self.inputs.items() if name.endswith("input_ids"))

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device. From pinned memory, nothing waits for the copy."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> "Batch":
        """The same batch in memory that a GPU reads by itself. Needs a GPU."""
        return self._with(Tensor.pin_memory)

    def _with(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return Batch(**{field.name: _changed(getattr(self, field.name), change) for field in fields(self)})


def _changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {name: _changed(item, change) for name, item in value.items()}
    if isinstance(value, int):
        return value
    return tuple(_changed(item, change) for item in value)
