"""Losses of rows of logits with their gradients, computed together. Knows nothing of models or of stores.

Every objective is a function of the student's log-mass in few buckets: the stored ids S of a row and, where it has one,
the tail: all that is outside S. With g_b = dL / d(log mass of bucket b), G the sum of all g, q the student's law and u
its mass outside S,

    dL/dz_j = q_j (g_tail / u - G)  for every j,  and on S  g_j - q_j g_tail / u  more,

so the gradient over the vocabulary is the softmax times one number a row, and a few additions on S.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from student.losses.divergences import ABSENT, Divergence, floor, forward_kl


@dataclass(frozen=True, slots=True)
class Term:
    """One objective over R rows: the sum of weights * loss.

    weights: [R], 0 where the row does not count. ids: int64 [R, K], different ones in a row but for the padding.
    log_p: [R, K], the teacher's log-probabilities at `temperature`; -inf where padded.
    divergence: of the teacher's buckets from the student's. None is the cross-entropy -sum p log q over the ids alone:
        hard labels, unbiased estimates of p, and a p that was renormalised.
    log_tail: [R], log of the teacher's mass outside the ids, which makes the tail a bucket; None without a divergence,
        and where the ids are the whole vocabulary.
    temperature: divides the student's logits. The T^2 of the convention belongs into the weights.
    entropy: [R], of the teacher's law, which makes a divergence of a cross-entropy; the gradient does not see it.
    """

    weights: Tensor
    ids: Tensor
    log_p: Tensor
    divergence: Divergence | None = None
    log_tail: Tensor | None = None
    temperature: float = 1.0
    entropy: Tensor | None = None

    def rows(self, start: int, stop: int) -> "Term":
        """Rows start:stop as views."""
        columns = (self.weights[start:stop], self.ids[start:stop], self.log_p[start:stop])
        tail, entropy = (None if x is None else x[start:stop] for x in (self.log_tail, self.entropy))
        return Term(*columns, self.divergence, tail, self.temperature, entropy)


def loss_and_gradient(logits: Tensor, terms: Sequence[Term], with_gradient: bool) -> tuple[Tensor, Tensor | None]:
    """Sums of the terms, [terms], and the gradient of their total at the logits, [R, V] or None.

    logits: float32 or float64 [R, V]; its memory is used up.
    """
    sums = logits.new_zeros(len(terms))
    by_temperature: dict[float, list[int]] = defaultdict(list)
    for i, term in enumerate(terms):
        by_temperature[term.temperature].append(i)
    gradient: Tensor | None = None
    for n, (temperature, members) in enumerate(by_temperature.items()):
        z = logits if n == len(by_temperature) - 1 else logits.clone()
        if temperature != 1:
            z.div_(temperature)
        held = [z.gather(-1, terms[i].ids) for i in members]
        top, place = z.max(-1, keepdim=True)
        torch.softmax(z, -1, out=z)
        # The greatest probability is at least 1 / V, so its logarithm is there however sharp the row.
        log_normalizer = top - z.gather(-1, place).log()
        everywhere = logits.new_zeros(len(logits), 1)
        on_support = []
        for i, z_held in zip(members, held, strict=True):
            term, log_q = terms[i], z_held - log_normalizer
            loss, head, tail, tail_q = _buckets(term, log_q, with_gradient)
            if term.entropy is not None:
                loss = loss - term.entropy
            sums[i] = (loss * term.weights).sum()
            if with_gradient:
                spread = tail / tail_q
                weights = term.weights.unsqueeze(-1)
                everywhere += weights * (spread - head.sum(-1, keepdim=True) - tail)
                inside = (head - z.gather(-1, term.ids) * spread).masked_fill_(torch.isneginf(term.log_p), 0.0)
                on_support.append((term.ids, inside.mul_(weights)))
        if with_gradient:
            z.mul_(everywhere)
            for ids, values in on_support:
                z.scatter_add_(-1, ids, values)
            if temperature != 1:
                z.div_(temperature)
            gradient = z if gradient is None else gradient.add_(z)
    return sums, gradient


def _buckets(term: Term, log_q: Tensor, with_gradient: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss [R], its derivatives by log q of entries [R, K] and of the tail [R, 1], and the student's tail [R, 1]."""
    none = torch.isneginf(term.log_p)
    log_p = term.log_p.to(log_q.dtype)
    nothing = log_q.new_zeros(len(log_q), 1)
    if term.divergence is None:
        p = log_p.exp()
        return -(p * log_q.masked_fill(none, 0.0)).sum(-1), -p, nothing, nothing + 1
    log_p = log_p.masked_fill(none, ABSENT)
    log_q = log_q.masked_fill(none, ABSENT)
    log_tail_q = nothing
    if term.log_tail is not None:
        # A student that puts all its mass on the support has no tail left; the logarithm is taken of at least this.
        least = torch.finfo(log_q.dtype).eps
        log_tail_q = torch.log(-torch.expm1(log_q.logsumexp(-1, keepdim=True).clamp_(max=-least)))
        log_tail = term.log_tail.to(log_q.dtype).unsqueeze(-1)
        log_p = torch.cat([log_p, log_tail.clamp(min=floor(term.divergence, log_q.dtype))], -1)
        log_q = torch.cat([log_q, log_tail_q], -1)
    tail_q = log_tail_q.exp()
    if term.divergence is forward_kl:
        derivative = -log_p.exp()
        loss = forward_kl(log_p, log_q)
    else:
        # Its graph ends here: hooks of a caller that checkpoints would compute the caller's block anew for it.
        with torch.enable_grad(), saved_tensors_hooks(_as_it_is, _as_it_is):
            log_q = log_q.detach().requires_grad_(with_gradient)
            loss = term.divergence(log_p, log_q)
            derivative = torch.autograd.grad(loss.sum(), log_q)[0] if with_gradient else log_q
        loss = loss.detach()
    if term.log_tail is None:
        return loss, derivative, nothing, tail_q
    return loss, derivative[:, :-1], derivative[:, -1:], tail_q


def _as_it_is(saved: Tensor) -> Tensor:
    return saved
