"""Divergences between two laws over few buckets. Pure functions of log-probabilities, one value a row, in nats.

A row has one bucket for each stored id and, last, one for all the rest of the vocabulary (the tail). Putting outcomes
together cannot raise an f-divergence, so each value is a lower bound of that over the whole vocabulary, and equal to it
where every id is stored. Both arguments are finite everywhere; a bucket that is not there has ABSENT on both sides.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

# exp(-80) is 1.8e-35: nothing beside any mass, and no infinity to meet a zero.
ABSENT = -80.0

Divergence = Callable[[Tensor, Tensor], Tensor]


def forward_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q). log_p, log_q [R, B] -> [R]."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def reverse_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(q || p). log_p, log_q [R, B] -> [R]."""
    return forward_kl(log_q, log_p)


def jensen_shannon(log_p: Tensor, log_q: Tensor, beta: float) -> Tensor:
    """beta KL(p || m) + (1 - beta) KL(q || m) with m = beta p + (1 - beta) q (GKD, arXiv 2306.13649)."""
    log_m = _mixture(log_p, log_q, beta)
    return beta * forward_kl(log_p, log_m) + (1 - beta) * forward_kl(log_q, log_m)


def skewed_kl(log_p: Tensor, log_q: Tensor, alpha: float) -> Tensor:
    """KL(p || alpha p + (1 - alpha) q) (DistiLLM, arXiv 2402.03898)."""
    return forward_kl(log_p, _mixture(log_p, log_q, alpha))


def skewed_reverse_kl(log_p: Tensor, log_q: Tensor, alpha: float) -> Tensor:
    """KL(q || (1 - alpha) p + alpha q) (DistiLLM)."""
    return forward_kl(log_q, _mixture(log_q, log_p, alpha))


def total_variation(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Half the sum of |p - q|, between 0 and 1."""
    return 0.5 * (log_p.exp() - log_q.exp()).abs().sum(-1)


def divergence(objective: str, beta: float) -> Divergence:
    """The function by the name that a job gives it; `beta` is its parameter, where it has one."""
    plain: dict[str, Divergence] = {"forward_kl": forward_kl, "reverse_kl": reverse_kl, "tvd": total_variation}
    if objective in plain:
        return plain[objective]
    shaped = {
        "jsd": partial(jensen_shannon, beta=beta),
        "skewed_kl": partial(skewed_kl, alpha=beta),
        "skewed_reverse_kl": partial(skewed_reverse_kl, alpha=beta),
    }
    return shaped[objective]


def floor(chosen: Divergence, dtype: torch.dtype) -> float:
    """Least log-probability of a teacher's outcome that is there: of one that rounded to nothing, a divergence that
    looks at p where only q has mass would be infinite."""
    return ABSENT if chosen is forward_kl else math.log(torch.finfo(dtype).eps)


def _mixture(log_a: Tensor, log_b: Tensor, share: float) -> Tensor:
    """log(share a + (1 - share) b)."""
    return torch.logaddexp(log_a + _log(share), log_b + _log(1 - share))


def _log(share: float) -> float:
    return float(torch.tensor(share, dtype=torch.float64).log())
