"""LogitTransform: what a model does to the product of hidden states and head."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class LogitTransform:
    """The transform of the product of hidden states and head: logits = cap * tanh(scale * product / cap).

    scale: as in Cohere and Granite. cap: as in Gemma 2; None: logits = scale * product.
    """

    scale: float = 1.0
    cap: float | None = None

    def apply(self, product: Tensor) -> Tensor:
        """The logits, with a gradient."""
        logits = product * self.scale if self.scale != 1 else product
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)

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
