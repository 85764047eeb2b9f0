"""References for the sparse losses: full distributions in float64, divergences of probabilities, and autograd."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from student.losses.head.fused_loss import loss_of_logits
from student.losses.registry import OBJECTIVES as REGISTRY
from student.losses.row_losses import LossTerm

OBJECTIVES = ("forward_kl", "reverse_kl", "jsd", "skewed_kl", "skewed_reverse_kl", "tvd")


def random_logits(rows: int, vocabulary: int, seed: int, spread: float = 2.0) -> Tensor:
    """float64 [rows, vocabulary]."""
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(rows, vocabulary)) * spread)


def random_law(rows: int, vocabulary: int, seed: int, spread: float = 2.0) -> Tensor:
    """Log-probabilities, float64 [rows, vocabulary]."""
    return random_logits(rows, vocabulary, seed, spread).log_softmax(-1)


def dense_loss(objective: str, shape: float, log_p: Tensor, log_q: Tensor) -> Tensor:
    """The divergence by its definition, [rows]; both laws have all their mass in the columns."""
    p, q = log_p.exp(), log_q.exp()
    if objective == "forward_kl":
        each = p * (log_p - log_q)
    elif objective == "reverse_kl":
        each = q * (log_q - log_p)
    elif objective == "jsd":
        m = shape * p + (1 - shape) * q
        each = shape * p * (p / m).log() + (1 - shape) * q * (q / m).log()
    elif objective == "skewed_kl":
        each = p * (p / (shape * p + (1 - shape) * q)).log()
    elif objective == "skewed_reverse_kl":
        each = q * (q / ((1 - shape) * p + shape * q)).log()
    else:
        each = (p - q).abs() / 2
    return each.sum(-1)


def coarse(log_law: Tensor, ids: Tensor) -> Tensor:
    """Log-probabilities of the ids and, last, of all others together, [rows, K + 1]; [rows, K] if none is left."""
    held = log_law.gather(-1, ids)
    if ids.shape[1] == log_law.shape[1]:
        return held
    others = log_law.scatter(-1, ids, -torch.inf).logsumexp(-1, keepdim=True)
    return torch.cat([held, others], -1)


def top_k(log_p: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The k largest of each row, as a store holds them: ids, log-probabilities, and the log of the mass left out."""
    values, ids = log_p.topk(k, dim=-1)
    left = log_p.scatter(-1, ids, -torch.inf).logsumexp(-1)
    return ids, values, left


def sparse_term(objective: str, shape: float, log_p: Tensor, k: int, **more: object) -> LossTerm:
    """A term of the k largest ids with the tail as a bucket; rows weigh 1 unless `weights` are given."""
    ids, values, tail = top_k(log_p, k)
    weights = torch.ones(len(log_p), dtype=log_p.dtype)
    parameter = None if REGISTRY[objective].default_parameter is None else shape
    given = {"weights": weights, "parameter": parameter, "objective": REGISTRY[objective], "log_tail": tail, **more}
    return LossTerm(ids=ids, log_p=values, **given)  # type: ignore[arg-type]


def found(logits: Tensor, *terms: LossTerm) -> tuple[Tensor, Tensor]:
    """Sum of each term, and the gradient of their total at the logits."""
    leaf = logits.detach().clone().requires_grad_()
    total, sums = loss_of_logits(leaf, terms)
    (gradient,) = torch.autograd.grad(total, leaf)
    return sums, gradient


def autograd(logits: Tensor, losses: Sequence[tuple[str, float, Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The same by autograd. losses: objective, its parameter, log p [rows, B], and the ids that make its buckets."""
    leaf = logits.detach().clone().requires_grad_()
    sums = torch.stack([dense_loss(o, s, p, coarse(leaf.log_softmax(-1), ids)).sum() for o, s, p, ids in losses])
    (gradient,) = torch.autograd.grad(sums.sum(), leaf)
    return sums.detach(), gradient
