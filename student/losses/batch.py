"""Batch: the tensors of a micro-batch."""

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """A micro-batch: what a model reads, and its R rows that carry a loss.

    inputs: arguments of the model, int64 [B, L]. rows: int64 [R], positions in the flattened [B * L] of what it gives.
    labels: int64 [R], the token (or class) that really comes; -1 where none is known.
    ids: int64 [R, K]. log_p, log_tail: float32 [R, K] (-inf where padded) and [R], for each temperature of
        the objectives.
    entropy: float32 [R] of the teacher's law, NaN where it is not known. weights: float32 [terms, R].
    """

    inputs: dict[str, Tensor]
    rows: Tensor
    labels: Tensor
    ids: Tensor
    log_p: tuple[Tensor, ...]
    log_tail: tuple[Tensor, ...]
    entropy: Tensor
    weights: Tensor

    def to(self, device: torch.device) -> "Batch":
        return Batch(**{field.name: _moved(getattr(self, field.name), device) for field in fields(self)})


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {name: _moved(item, device) for name, item in value.items()}
    return tuple(_moved(item, device) for item in value)
