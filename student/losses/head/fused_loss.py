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
from torch.utils.checkpoint import checkpoint

from student.losses.head.logits import precise_logits
from student.losses.head.product import factor_dtype, has_mixed_product, precise_dtype, precise_product
from student.losses.head.transform import LogitTransform
from student.losses.row_losses import LossTerm, loss_and_gradient

# Logits of a block, in elements: 128 MiB of float32 on a CPU. A GPU needs larger products to be fast.
BLOCK_ELEMENTS = 1 << 25
GPU_BLOCK_ELEMENTS = 1 << 28


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

    rows: size of a block. Logits, and all that follows, are float32 (float64 for float64 arguments), also where hidden
    states and head are bfloat16. Only the backward products take a gradient that is rounded to the arguments' dtype.
    """
    rows = rows or block_rows(len(weight), hidden.device)
    dtype = factor_dtype(hidden, weight)
    needed = _need_gradients(hidden, weight, bias)
    with torch.autocast(hidden.device.type, enabled=False):
        result = _FusedLoss.apply(hidden, weight, bias, transform, terms, rows, dtype, needed)  # type: ignore[no-untyped-call]
    total, sums = result
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
    total, sums = _LogitsLoss.apply(logits, terms, *_need_gradients(logits))  # type: ignore[no-untyped-call]
    return total, sums


def _need_gradients(*values: Tensor | None) -> tuple[bool, ...]:
    """Whether each value needs a gradient now. The `needs_input_grad` of autograd is also true under `no_grad`."""
    return tuple(value is not None and value.requires_grad and torch.is_grad_enabled() for value in values)


def _head_block(
    head: torch.nn.Module, hidden: Tensor, transform: LogitTransform, terms: Sequence[LossTerm]
) -> tuple[Tensor, Tensor]:
    return loss_of_logits(precise_logits(head, hidden, transform), terms)


class _LogitsLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, terms: Sequence[LossTerm], needed: bool) -> tuple[Tensor, Tensor]:
        copy = logits.detach().to(torch.promote_types(logits.dtype, torch.float32), copy=True)
        sums, gradient = loss_and_gradient(copy, terms, needed)
        if gradient is not None:
            ctx.save_for_backward(gradient.to(logits.dtype))
        ctx.mark_non_differentiable(sums)
        return sums.sum(), sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        return ctx.saved_tensors[0] * upstream[0], None, None


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
        dtype: torch.dtype,
        needed: Sequence[bool],
    ) -> tuple[Tensor, Tensor]:
        with_gradient = any(needed)
        gradients = _HeadGradients.zeros(hidden, weight, bias, dtype, needed)
        sums = hidden.new_zeros(len(terms), dtype=precise_dtype(dtype))
        matrix = weight.to(dtype)
        for start in range(0, len(hidden), rows):
            block = slice(start, start + rows)
            states = hidden[block].to(dtype)
            logits = precise_product(states, matrix.t())
            if bias is not None:
                logits += bias
            logits = transform.apply_(logits)
            capped = logits.clone() if transform.cap is not None and with_gradient else None
            block_sums, gradient = loss_and_gradient(
                logits, [term.rows(start, start + rows) for term in terms], with_gradient
            )
            sums += block_sums
            if gradient is not None:
                gradients.add_block(transform.back_(gradient, capped), states, matrix, block)
        ctx.save_for_backward(gradients.hidden, _like(gradients.weight, weight), _like(gradients.bias, bias))
        ctx.mark_non_differentiable(sums)
        return sums.sum(), sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        # In place, because a copy of the head's gradient is large. It cannot happen twice: `once_differentiable`, and
        # autograd frees its buffers.
        scaled = [None if gradient is None else gradient.mul_(upstream[0]) for gradient in ctx.saved_tensors]
        return *scaled, None, None, None, None, None


def _like(gradient: Tensor | None, value: Tensor | None) -> Tensor | None:
    return None if gradient is None or value is None else gradient.to(value.dtype)


@dataclass(frozen=True, slots=True)
class _HeadGradients:
    """Gradients that are summed over blocks, in place; None where no gradient is needed."""

    hidden: Tensor | None
    weight: Tensor | None
    bias: Tensor | None

    @classmethod
    def zeros(
        cls, hidden: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, needed: Sequence[bool]
    ) -> "_HeadGradients":
        """The gradients before the first block. dtype: of products. needed: for hidden states, weight and bias."""
        # Sums over blocks are float32: in bfloat16, small summands would be lost.
        precise = precise_dtype(dtype)
        return cls(
            torch.empty_like(hidden) if needed[0] else None,
            torch.zeros_like(weight, dtype=precise) if needed[1] else None,
            torch.zeros_like(bias, dtype=precise) if needed[2] and bias is not None else None,
        )

    def add_block(self, gradient: Tensor, states: Tensor, matrix: Tensor, block: slice) -> None:
        """Add a block. gradient: at its products, [rows, V]. states: its hidden states, [rows, d]. matrix: [V, d]."""
        if self.bias is not None:
            self.bias.add_(gradient.sum(0))
        rounded = gradient.to(matrix.dtype)
        if self.hidden is not None and self.hidden.dtype == matrix.dtype:
            torch.mm(rounded, matrix, out=self.hidden[block])
        elif self.hidden is not None:
            self.hidden[block] = rounded @ matrix
        if self.weight is not None and has_mixed_product(gradient.device):
            self.weight.add_(precise_product(rounded.t(), states))
        elif self.weight is not None:
            self.weight.addmm_(gradient.t(), states.to(gradient.dtype))
