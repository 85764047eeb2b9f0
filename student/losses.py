"""Losses of rows of logits. Pure functions of tensors, each one loss a row; the reduction is left to others."""

import torch
from torch import Tensor

# A student that puts all its mass on the support has no tail left; the logarithm is taken of at least this much.
SMALLEST_TAIL = 1e-7


def hard_label_loss(log_q: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy to the token that really came: -log q(label). log_q [R, V], labels int64 [R] -> [R]."""
    return -log_q.gather(-1, labels.unsqueeze(-1)).squeeze(-1)


def forward_kl_loss(log_q: Tensor, ids: Tensor, log_p: Tensor, log_tail: Tensor) -> Tensor:
    """KL(p || q) with everything outside the stored support as one bucket: a lower bound of the full divergence.

    sum_S p log(p / q) + t log(t / u), with t the teacher's and u the student's mass outside the support S.
    log_q [R, V]; ids int64 [R, K] and log_p [R, K], padded with log_p = -inf; log_tail [R] = log t. Returns [R], nats.
    """
    held = torch.isfinite(log_p)
    log_p_held = log_p.masked_fill(~held, 0.0)
    log_q_held = log_q.gather(-1, ids)
    head = (log_p_held.exp() * (log_p_held - log_q_held)).masked_fill(~held, 0.0).sum(-1)
    log_head_q = torch.logsumexp(log_q_held.masked_fill(~held, -torch.inf), dim=-1)
    log_tail_q = torch.log(-torch.expm1(log_head_q.clamp(max=-SMALLEST_TAIL)))
    tail_mass = log_tail.exp()
    has_tail = tail_mass > 0
    tail = torch.where(has_tail, tail_mass * (log_tail.masked_fill(~has_tail, 0.0) - log_tail_q), 0.0)
    return head + tail
