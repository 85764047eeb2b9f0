"""Divergences between two distributions over a few buckets: what all objectives have in common.

A row has one bucket for each stored id and, last, one for all other ids of the vocabulary (the tail). Merging outcomes
cannot raise an f-divergence. So each value is a lower bound of the divergence over the whole vocabulary, and equal to
it where every id is stored. Both arguments are finite everywhere. A padded bucket has ABSENT on both sides.

This module and the objectives do not import torch at the top: reading a job file loads every objective.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# exp(-80) is 1.8e-35: negligible beside any mass, and finite, unlike the logarithm of 0.
ABSENT = -80.0

# (log_p of the teacher, log_q of the student), both [R, buckets], and a parameter where the objective has one.
# Returns one value a row in nats, [R].
DivergenceFunction = Callable[..., "Tensor"]


def kl_divergence(log_p: "Tensor", log_q: "Tensor") -> "Tensor":
    """KL(p || q) = sum p (log p - log q). log_p, log_q: [R, B]. Returns [R]."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def log_mixture(log_a: "Tensor", log_b: "Tensor", share: float) -> "Tensor":
    """log(share a + (1 - share) b), [R, B]."""
    import torch

    return torch.logaddexp(log_a + _log(share), log_b + _log(1 - share))


def _log(share: float) -> float:
    import torch

    return float(torch.tensor(share, dtype=torch.float64).log())
