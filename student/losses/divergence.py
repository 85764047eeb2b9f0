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


def decoupled_kl(log_p: "Tensor", log_q: "Tensor", temperature: float) -> "Tensor":
    """KL(p || q) in two parts, the second one at a temperature T (after Zhao et al. 2022, arXiv 2203.08679).

    With m the teacher's mass on the stored ids S and q_S the student's,

        KL((m, 1 - m) || (q_S, 1 - q_S)) / T^2  +  m KL(p^(1/T) / sum over S || q^(1/T) / sum over S).

    At T = 1 it is KL(p || q). The factor T^2 of a term turns it into KL + m T^2 KL. No normaliser over the vocabulary
    is needed at any T. log_p, log_q: [R, B], whose last bucket is the tail. Returns [R].
    """
    import torch

    is_padding = log_p[:, :-1] <= ABSENT
    is_padding &= ~is_padding.all(-1, keepdim=True)  # a row without entries has no shares
    held_p, held_q = (held[:, :-1].masked_fill(is_padding, -torch.inf) for held in (log_p, log_q))
    log_mass_p, log_mass_q = (held.logsumexp(-1, keepdim=True) for held in (held_p, held_q))
    of_mass = kl_divergence(
        torch.cat([log_mass_p, log_p[:, -1:]], -1).clamp(min=ABSENT), torch.cat([log_mass_q, log_q[:, -1:]], -1)
    )
    shares_p, shares_q = ((held / temperature).log_softmax(-1) for held in (held_p, held_q))
    within = kl_divergence(shares_p.masked_fill(is_padding, ABSENT), torch.where(is_padding, ABSENT, shares_q))
    return of_mass / temperature**2 + log_mass_p.squeeze(-1).exp() * within


def log_mixture(log_a: "Tensor", log_b: "Tensor", share: float) -> "Tensor":
    """log(share a + (1 - share) b), [R, B]."""
    import torch

    return torch.logaddexp(log_a + _log(share), log_b + _log(1 - share))


def _log(share: float) -> float:
    import torch

    return float(torch.tensor(share, dtype=torch.float64).log())
