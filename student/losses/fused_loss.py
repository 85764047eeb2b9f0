"""Loss and gradients straight from hidden states and the LM head: logits exist for a block of rows at a time.

The gradients are computed in the forward pass, while a block's logits are there, and only scaled in the backward pass.
What is held beside them is one gradient of the head and one of the hidden states. The idea is that of Liger's fused
linear cross-entropy (Hsu et al., arXiv 2410.10989), here for sparse targets.
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

# Logits held at a time, in elements: 128 MiB of float32 on a CPU, more on a GPU, whose products want to be large.
BLOCK_ELEMENTS = 1 << 25
GPU_BLOCK_ELEMENTS = 1 << 28


@dataclass(frozen=True, slots=True)
class LogitTransform:
    """What a model does to the product of hidden states and head: logits = cap * tanh(scale * product / cap).

    cap: of Gemma 2; None leaves the logits as they are. scale: of Cohere, Granite.
    """

    scale: float = 1.0
    cap: float | None = None

    def apply_(self, logits: Tensor) -> Tensor:
        """In place."""
        if self.scale != 1:
            logits.mul_(self.scale)
        return logits if self.cap is None else logits.div_(self.cap).tanh_().mul_(self.cap)

    def back_(self, gradient: Tensor, logits: Tensor | None) -> Tensor:
        """Gradient at the product from that at the logits, in place. logits: as `apply_` left them, for a cap."""
        if self.cap is not None:
            assert logits is not None
            gradient.mul_(1 - (logits / self.cap).square_())
        return gradient.mul_(self.scale) if self.scale != 1 else gradient


def block_rows(vocab_size: int, device: torch.device) -> int:
    """Rows whose logits are held at a time."""
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
    """Total of the terms, with gradients for hidden [R, d], weight [V, d] and bias [V]; and each term's sum, [terms].

    rows: of a block. Products are in the dtype of the arguments, everything after them in float32 (or float64).
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
    """The same for a head that is more than one matrix, such as one with adapters: each block is computed twice.

    blocks: at least so many are computed, if need be of no rows. ZeRO-3 gathers the head's weights at each, which all
    ranks must do equally often.
    """
    total, sums = hidden.new_zeros((), dtype=torch.float32), hidden.new_zeros(len(terms), dtype=torch.float32)
    for start in range(0, max(blocks * rows, len(hidden)), rows):
        part = [term.rows(start, start + rows) for term in terms]
        block = checkpoint(_head_block, head, hidden[start : start + rows], transform, part, use_reentrant=False)
        total, sums = total + block[0], sums + block[1]
    return total, sums


def loss_of_logits(logits: Tensor, terms: Sequence[LossTerm]) -> tuple[Tensor, Tensor]:
    """The same from whole logits [R, V], for loops that have them anyway."""
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
        for_hidden, for_weight, for_bias = ctx.needs_input_grad[:3]
        wanted = any((for_hidden, for_weight, for_bias))
        precise = torch.promote_types(weight.dtype, torch.float32)
        d_hidden = torch.empty_like(hidden) if for_hidden else None
        # Sums over blocks are kept in float32: bfloat16 would lose the small ones.
        d_weight = torch.zeros_like(weight, dtype=precise) if for_weight else None
        d_bias = torch.zeros_like(bias, dtype=precise) if for_bias and bias is not None else None
        sums = hidden.new_zeros(len(terms), dtype=precise)
        for start in range(0, len(hidden), rows):
            block = slice(start, start + rows)
            logits = transform.apply_(functional.linear(hidden[block], weight, bias).to(precise))
            capped = logits.clone() if transform.cap is not None and wanted else None
            part, gradient = loss_and_gradient(logits, [term.rows(start, start + rows) for term in terms], wanted)
            sums += part
            if gradient is None:
                continue
            transform.back_(gradient, capped)
            if d_bias is not None:
                d_bias += gradient.sum(0)
            gradient = gradient.to(weight.dtype)
            if d_hidden is not None:
                torch.mm(gradient, weight, out=d_hidden[block])
            if d_weight is not None and weight.dtype == precise:
                d_weight.addmm_(gradient.t(), hidden[block])
            elif d_weight is not None:
                d_weight += gradient.t() @ hidden[block]
        gradients = (d_hidden, _like(d_weight, weight), _like(d_bias, bias))
        ctx.save_for_backward(*gradients)
        ctx.mark_non_differentiable(sums)
        return sums.sum(), sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        # In place, since a copy of the head's gradient is large; `once_differentiable` and the freed buffers of
        # autograd keep it from happening twice.
        scaled = [None if gradient is None else gradient.mul_(upstream[0]) for gradient in ctx.saved_tensors]
        return *scaled, None, None, None


def _like(gradient: Tensor | None, value: Tensor | None) -> Tensor | None:
    return None if gradient is None or value is None else gradient.to(value.dtype)
