"""Logits from hidden states with the head of a model, without a rounding to bfloat16."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from student.losses.head.product import precise_dtype, precise_linear
from student.losses.head.transform import LogitTransform


def precise_logits(head: nn.Module, hidden: Tensor, transform: LogitTransform) -> Tensor:
    """Logits [R, V] in float32 (float64 for float64), with a gradient. hidden: [R, d].

    Each linear layer of the head, also of its adapters, gives float32. The modules are called as usual, so ZeRO-3
    gathers their weights.
    """
    with ExitStack() as stack:
        for module in head.modules():
            if type(module) is nn.Linear:
                stack.enter_context(forward_replaced(module, _linear(module)))
        product: Tensor = head(hidden)
    return transform.apply(product.to(precise_dtype(product.dtype)))


def _linear(module: nn.Linear) -> Callable[[Tensor], Tensor]:
    return lambda states: precise_linear(states, module.weight, module.bias)


@contextmanager
def forward_replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[nn.Module]:
    """The module with another forward. Calling it still runs its hooks, with which ZeRO-3 gathers its weights."""
    # As an attribute of the instance. DeepSpeed may have set one already.
    previous = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield module
    finally:
        if previous is None:
            del module.forward
        else:
            module.forward = previous
