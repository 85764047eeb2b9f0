"""The body of a compact classifier that compares two texts word by word: an answer with the texts before it."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class DecomposableAttention(nn.Module):
    """Attend, compare, aggregate (Parikh et al. 2016, https://arxiv.org/abs/1606.01933): [B, L, width] to [B, size].

    Side 1 is the last segment of a text, side 0 all that is before it. Each word is compared with its soft alignment in
    the other side: g([x, y, x * y]), where y is the mean of the other side's embeddings, weighted by the softmax of
    x . x' / sqrt(width). A side is the maximum over its words; the result is both sides, size = 2 * units. As in the
    paper there are no positions: the order of words means nothing.
    """

    def __init__(self, width: int, units: int) -> None:
        super().__init__()
        self.size = 2 * units
        self.compare = nn.Linear(3 * width, units)

    def forward(self, x: Tensor, mask: Tensor, separators: Tensor) -> Tensor:
        """x: [B, L, width]. mask, separators: bool [B, L]; separators are words of no side. No other side: y is 0."""
        # The number of separators at or after each position: 0 in the last segment.
        remaining = separators.long().flip(1).cumsum(1).flip(1)
        words = mask & ~separators
        sides = torch.stack([words & (remaining > 0), words & (remaining == 0)], 1)
        other = (words[:, :, None] & words[:, None, :]) & ((remaining > 0)[:, :, None] != (remaining > 0)[:, None, :])
        scores = x @ x.transpose(1, 2) / math.sqrt(x.shape[-1])
        # Not -inf: a word without another side would be NaN.
        weights = scores.masked_fill(~other, torch.finfo(scores.dtype).min).softmax(-1) * other
        aligned = weights @ x
        compared = functional.relu(self.compare(torch.cat([x, aligned, x * aligned], -1)))
        states = compared[:, None].masked_fill(~sides.unsqueeze(-1), 0.0).amax(2)
        return states.flatten(1)
