"""Batch: the tensors of a micro-batch."""

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
        """The same batch on another device."""
        return Batch(**{field.name: _to_device(getattr(self, field.name), device) for field in fields(self)})


def _to_device(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {name: _to_device(item, device) for name, item in value.items()}
    if isinstance(value, int):
        return value
    return tuple(_to_device(item, device) for item in value)
