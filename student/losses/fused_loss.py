"""Loss and gradients from hidden states and the LM head: logits exist only for one block of rows at a time.

The forward pass computes the gradients while a block's logits exist, and the backward pass only scales them. So memory
has one gradient of the head and one of the hidden states, but no logits of all rows. This is the method of Liger's
fused linear cross-entropy (Hsu et al., arXiv 2410.10989), here for sparse targets.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from student.losses.row_losses import LossTerm, loss_and_gradient

# Logits of a block, in elements: 128 MiB of float32 on a CPU. A GPU needs larger products to be fast.
BLOCK_ELEMENTS = 1 << 25
GPU_BLOCK_ELEMENTS = 1 << 28


@dataclass(frozen=True, slots=True)
class LogitTransform:
    """The transform of the product of hidden states and head: logits = cap * tanh(scale * product / cap).

    scale: as in Cohere and Granite. cap: as in Gemma 2; None: logits = scale * product.
    """

    scale: float = 1.0
    cap: float | None = None

    def apply_(self, logits: Tensor) -> Tensor:
        """The logits, computed in place of the product."""
        if self.scale != 1:
            logits.mul_(self.scale)
        return logits if self.cap is None else logits.div_(self.cap).tanh_().mul_(self.cap)

    def back_(self, gradient: Tensor, logits: Tensor | None) -> Tensor:
        """Turn the gradient at the logits into that at the product, in place. logits: from `apply_`, for a cap."""
        if self.cap is not None:
            assert logits is not None
            gradient.mul_(1 - (logits / self.cap).square_())
        return gradient.mul_(self.scale) if self.scale != 1 else gradient


def block_rows(vocab_size: int, device: torch.device) -> int:
    """Number of rows in a block."""
    elements = BLOCK_ELEMENTS if device.type == "cpu" else GPU_BLOCK_ELEMENTS
    return max(1, elements // vocab_size)


def fused_loss(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    transform: LogitTransform,
    terms: Sequence[LossTerm],
    rows: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The total of the terms, with gradients for hidden [R, d], weight [V, d] and bias [V]; and each term's sum.

    rows: size of a block. Products use the dtype of the arguments; everything after them is float32 (or float64).
    """
    rows = rows or block_rows(len(weight), hidden.device)
    total, sums = _FusedLoss.apply(hidden, weight, bias, transform, terms, rows)  # type: ignore[no-untyped-call]
    return total, sums


def checkpointed_loss(
    head: torch.nn.Module,
    hidden: Tensor,
    transform: LogitTransform,
    terms: Sequence[LossTerm],
    rows: int,
    blocks: int = 1,
) -> tuple[Tensor, Tensor]:
    """The same for a head of more than one matrix, such as one with adapters. Each block is computed twice.

    blocks: minimum number of blocks; the last ones may have no rows. ZeRO-3 gathers the head's weights for each block,
    and all ranks must do this equally often.
    """
    total, sums = hidden.new_zeros((), dtype=torch.float32), hidden.new_zeros(len(terms), dtype=torch.float32)
    for start in range(0, max(blocks * rows, len(hidden)), rows):
        part = [term.rows(start, start + rows) for term in terms]
        block = checkpoint(_head_block, head, hidden[start : start + rows], transform, part, use_reentrant=False)
        total, sums = total + block[0], sums + block[1]
    return total, sums


def loss_of_logits(logits: Tensor, terms: Sequence[LossTerm]) -> tuple[Tensor, Tensor]:
    """The same from all logits, [R, V], for training loops that have them anyway."""
    total, sums = _LogitsLoss.apply(logits, terms)  # type: ignore[no-untyped-call]
    return total, sums


def _head_block(
    head: torch.nn.Module, hidden: Tensor, transform: LogitTransform, terms: Sequence[LossTerm]
) -> tuple[Tensor, Tensor]:
    logits = _at_least_float32(head(hidden)) * transform.scale
    if transform.cap is not None:
        logits = transform.cap * torch.tanh(logits / transform.cap)
    return loss_of_logits(logits, terms)


def _at_least_float32(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


class _LogitsLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, terms: Sequence[LossTerm]) -> tuple[Tensor, Tensor]:
        copy = logits.detach().to(torch.promote_types(logits.dtype, torch.float32), copy=True)
        sums, gradient = loss_and_gradient(copy, terms, ctx.needs_input_grad[0])
        if gradient is not None:
            ctx.save_for_backward(gradient.to(logits.dtype))
        ctx.mark_non_differentiable(sums)
        return sums.sum(), sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        return ctx.saved_tensors[0] * upstream[0], None


class _FusedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        transform: LogitTransform,
        terms: Sequence[LossTerm],
        rows: int,
    ) -> tuple[Tensor, Tensor]:
        gradients = _HeadGradients.zeros(hidden, weight, bias, ctx.needs_input_grad[:3])
        with_gradient = any(ctx.needs_input_grad[:3])
        precise = torch.promote_types(weight.dtype, torch.float32)
        sums = hidden.new_zeros(len(terms), dtype=precise)
        for start in range(0, len(hidden), rows):
            block = slice(start, start + rows)
            logits = transform.apply_(functional.linear(hidden[block], weight, bias).to(precise))
            capped = logits.clone() if transform.cap is not None and with_gradient else None
            block_sums, gradient = loss_and_gradient(
                logits, [term.rows(start, start + rows) for term in terms], with_gradient
            )
            sums += block_sums
            if gradient is not None:
                gradients.add_block(transform.back_(gradient, capped), hidden[block], weight, block)
        ctx.save_for_backward(gradients.hidden, _like(gradients.weight, weight), _like(gradients.bias, bias))
        ctx.mark_non_differentiable(sums)
        return sums.sum(), sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        # In place, because a copy of the head's gradient is large. It cannot happen twice: `once_differentiable`, and
        # autograd frees its buffers.
        scaled = [None if gradient is None else gradient.mul_(upstream[0]) for gradient in ctx.saved_tensors]
        return *scaled, None, None, None


def _like(gradient: Tensor | None, value: Tensor | None) -> Tensor | None:
    return None if gradient is None or value is None else gradient.to(value.dtype)


@dataclass(frozen=True, slots=True)
class _HeadGradients:
    """Gradients that are summed over blocks, in place; None where no gradient is needed."""

    hidden: Tensor | None
    weight: Tensor | None
    bias: Tensor | None

    @classmethod
    def zeros(cls, hidden: Tensor, weight: Tensor, bias: Tensor | None, needed: Sequence[bool]) -> "_HeadGradients":
        """The gradients before the first block. needed: for hidden states, weight and bias."""
        # Sums over blocks are float32: in bfloat16, small summands would be lost.
        precise = torch.promote_types(weight.dtype, torch.float32)
        return cls(
            torch.empty_like(hidden) if needed[0] else None,
            torch.zeros_like(weight, dtype=precise) if needed[1] else None,
            torch.zeros_like(bias, dtype=precise) if needed[2] and bias is not None else None,
        )

    def add_block(self, gradient: Tensor, hidden: Tensor, weight: Tensor, block: slice) -> None:
        """Add a block. gradient: at its products, [rows, V]. hidden: its hidden states, [rows, d]."""
        if self.bias is not None:
            self.bias.add_(gradient.sum(0))
        precise = gradient.dtype
        gradient = gradient.to(weight.dtype)
        if self.hidden is not None:
            torch.mm(gradient, weight, out=self.hidden[block])
        if self.weight is not None and weight.dtype == precise:
            self.weight.addmm_(gradient.t(), hidden)
        elif self.weight is not None:
            self.weight.add_(gradient.t() @ hidden)
