"""Products of hidden states and head whose sums and results are float32, also for bfloat16 factors.

bfloat16 has 8 significant bits, so a logit of 20 that is rounded to it is wrong by up to 0.06. Close to the teacher the
gradient is a small difference of probabilities, and this error becomes a large part of it.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Columns that are converted at a time where a device has no such product. A piece of the head stays in the cache.
PIECE = 512


def precise_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of sums over values of this dtype: float32, or float64 for float64."""
    return torch.promote_types(dtype, torch.float32)


def factor_dtype(left: Tensor, right: Tensor) -> torch.dtype:
    """The dtype in which two factors are multiplied: that of autocast where it is on, otherwise the wider of both."""
    dtype = torch.promote_types(left.dtype, right.dtype)
    device = left.device.type
    if dtype == torch.float32 and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return dtype


def has_mixed_product(device: torch.device) -> bool:
    """Whether PyTorch multiplies bfloat16 matrices to a float32 result on this device: on CUDA alone."""
    return device.type == "cuda" and torch.version.hip is None


def precise_product(left: Tensor, right: Tensor) -> Tensor:
    """left @ right, [n, m], with float32 sums and result (float64 for float64). left: [n, d]. right: [d, m].

    Both have one dtype. Call it where autocast is off and no gradient is recorded.
    """
    dtype = precise_dtype(left.dtype)
    if dtype == left.dtype:
        return left @ right
    if has_mixed_product(left.device) and left.numel() and right.numel():
        return torch.mm(left, right, out_dtype=dtype)
    result = torch.empty(len(left), right.shape[1], dtype=dtype, device=left.device)
    left = left.to(dtype)
    for start in range(0, right.shape[1], PIECE):
        columns = slice(start, start + PIECE)
        torch.mm(left, right[:, columns].to(dtype), out=result[:, columns])
    return result


def precise_linear(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """states @ weight.T + bias with float32 sums and result, and its gradient. states: [..., d]. weight: [m, d]."""
    dtype = factor_dtype(states, weight)
    with torch.autocast(states.device.type, enabled=False):
        product: Tensor = _PreciseLinear.apply(states.flatten(0, -2), weight, dtype)  # type: ignore[no-untyped-call]
    if bias is not None:
        product = product + bias
    return product.view(*states.shape[:-1], len(weight))


class _PreciseLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(states, weight)
        ctx.dtype = dtype
        return precise_product(states.to(dtype), weight.to(dtype).t())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        states, weight = ctx.saved_tensors
        with torch.autocast(gradient.device.type, enabled=False):
            gradient = gradient.to(ctx.dtype)
            of_states = of_weight = None
            if ctx.needs_input_grad[0]:
                of_states = (gradient @ weight.to(ctx.dtype)).to(states.dtype)
            if ctx.needs_input_grad[1]:
                of_weight = (gradient.t() @ states.to(ctx.dtype)).to(weight.dtype)
        return of_states, of_weight, None
