"""Losses of rows of logits and their gradients, computed together. Independent of models and stores.

Every objective is a function of the student's log-mass in a few buckets: the stored ids S of a row and, where the row
has one, the tail, which is all mass outside S. Let g_b = dL / d(log mass of bucket b), G the sum of all g, q the
student's distribution and u its mass outside S. Then

    dL/dz_j = q_j (g_tail / u - G)  for every id j,  plus  g_j - q_j g_tail / u  for j in S.

So the gradient over the vocabulary is the softmax times one number a row, plus a few additions on S.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from student.losses.divergence import ABSENT
from student.losses.objective import Objective

# Columns whose summands of an entropy exist at a time: a block of logits has no room for a second one.
ENTROPY_COLUMNS = 4096


@dataclass(frozen=True, slots=True)
class LossTerm:
    """One objective over R rows: the sum of weights * loss.

    weights: [R], 0 where the row does not count. ids: int64 [R, K], distinct within a row except for padding.
    log_p: [R, K], the teacher's log-probabilities at `temperature`; -inf where padded.
    objective: has the divergence of the student's buckets from the teacher's. None: the cross-entropy -sum p log q over
        the ids alone, for hard labels, unbiased estimates of p, and a renormalised p.
    parameter: of the objective, None if it has none.
    log_tail: [R], log of the teacher's mass outside the ids, which makes the tail a bucket. None without an objective,
        and where the ids are the whole vocabulary.
    temperature: divides the student's logits. The conventional factor T^2 belongs in the weights.
    entropy: [R], of the teacher's distribution. It turns a cross-entropy into a divergence, without effect on the
        gradient.
    min_entropy: rows where the student's own distribution at `temperature` has less entropy, in nats, weigh 0. kept:
        [2], to which the rows that do not are added, and all rows with a weight.
    """

    weights: Tensor
    ids: Tensor
    log_p: Tensor
    objective: Objective | None = None
    parameter: float | None = None
    log_tail: Tensor | None = None
    temperature: float = 1.0
    entropy: Tensor | None = None
    min_entropy: float | None = None
    kept: Tensor | None = None

    def rows(self, start: int, stop: int) -> "LossTerm":
        """Rows start:stop as views."""
        columns = (self.weights[start:stop], self.ids[start:stop], self.log_p[start:stop])
        tail, entropy = (None if x is None else x[start:stop] for x in (self.log_tail, self.entropy))
        selection = (self.min_entropy, self.kept)
        return LossTerm(*columns, self.objective, self.parameter, tail, self.temperature, entropy, *selection)


class BucketLosses(NamedTuple):
    """Losses of R rows as functions of the student's log-mass in each bucket.

    loss: [R]. by_ids, by_tail: derivatives by the log-mass of the ids, [R, K], and of the tail, [R, 1].
    student_tail: [R, 1], the student's mass outside the ids; 1 if the term has no tail.
    """

    loss: Tensor
    by_ids: Tensor
    by_tail: Tensor
    student_tail: Tensor


def loss_and_gradient(logits: Tensor, terms: Sequence[LossTerm], with_gradient: bool) -> tuple[Tensor, Tensor | None]:
    """The sum of each term, [terms], and the gradient of their total at the logits, [R, V] or None.

    logits: float32 or float64 [R, V]. They are overwritten.
    """
    sums = logits.new_zeros(len(terms))
    by_temperature: dict[float, list[int]] = defaultdict(list)
    for i, term in enumerate(terms):
        by_temperature[term.temperature].append(i)
    gradient: Tensor | None = None
    for n, (temperature, indices) in enumerate(by_temperature.items()):
        is_last = n == len(by_temperature) - 1
        scaled = logits if is_last else logits.clone()
        if temperature != 1:
            scaled.div_(temperature)
        losses = _same_temperature(scaled, [terms[i] for i in indices], with_gradient)
        for i, loss in zip(indices, losses, strict=True):
            sums[i] = loss
        if with_gradient:
            if temperature != 1:
                scaled.div_(temperature)
            gradient = scaled if gradient is None else gradient.add_(scaled)
    return sums, gradient


def _same_temperature(logits: Tensor, terms: Sequence[LossTerm], with_gradient: bool) -> list[Tensor]:
    """The sum of each term. The logits, [R, V], become the gradient of the total, or without it the softmax."""
    logits_of_ids = [logits.gather(-1, term.ids) for term in terms]
    max_logit, argmax = logits.max(-1, keepdim=True)
    torch.softmax(logits, -1, out=logits)
    q = logits
    # The largest probability is at least 1 / V, so its logarithm is finite however sharp the row is.
    log_normalizer = max_logit - q.gather(-1, argmax).log()
    selects = any(term.min_entropy is not None for term in terms)
    student_entropy = entropies(q) if selects else None
    factor_of_q = q.new_zeros(len(q), 1)
    added_at_ids = []
    sums = []
    for term, logits_at_ids in zip(terms, logits_of_ids, strict=True):
        loss, by_ids, by_tail, student_tail = _bucket_losses(term, logits_at_ids - log_normalizer, with_gradient)
        if term.entropy is not None:
            loss = loss - term.entropy
        weights = term.weights
        if term.min_entropy is not None and student_entropy is not None:
            weights = weights * (student_entropy >= term.min_entropy)
            if term.kept is not None:
                term.kept.add_(torch.stack([(weights > 0).sum(), (term.weights > 0).sum()]).to(term.kept))
        sums.append((loss * weights).sum())
        if with_gradient:
            tail_slope = by_tail / student_tail
            weights = weights.unsqueeze(-1)
            factor_of_q += weights * (tail_slope - by_ids.sum(-1, keepdim=True) - by_tail)
            at_ids = (by_ids - q.gather(-1, term.ids) * tail_slope).masked_fill_(torch.isneginf(term.log_p), 0.0)
            added_at_ids.append((term.ids, at_ids.mul_(weights)))
    if with_gradient:
        q.mul_(factor_of_q)
        for ids, values in added_at_ids:
            q.scatter_add_(-1, ids, values)
    return sums


def entropies(p: Tensor) -> Tensor:
    """Entropy of each row of probabilities in nats, [R]. p: [R, V]."""
    total = p.new_zeros(len(p))
    for columns in torch.split(p, ENTROPY_COLUMNS, -1):
        total += torch.special.entr(columns).sum(-1)
    return total


def _bucket_losses(term: LossTerm, log_q: Tensor, with_gradient: bool) -> BucketLosses:
    """Losses of a term. log_q: [R, K], the student's log-probabilities of the ids."""
    is_padding = torch.isneginf(term.log_p)
    log_p = term.log_p.to(log_q.dtype)
    zeros = log_q.new_zeros(len(log_q), 1)
    if term.objective is None:
        p = log_p.exp()
        return BucketLosses(-(p * log_q.masked_fill(is_padding, 0.0)).sum(-1), -p, zeros, zeros + 1)
    log_p = log_p.masked_fill(is_padding, ABSENT)
    log_q = log_q.masked_fill(is_padding, ABSENT)
    log_student_tail = zeros
    if term.log_tail is not None:
        # A student with all its mass on the ids has no tail left. This is the smallest mass its logarithm is taken of.
        min_mass = torch.finfo(log_q.dtype).eps
        log_student_tail = torch.log(-torch.expm1(log_q.logsumexp(-1, keepdim=True).clamp_(max=-min_mass)))
        log_tail = term.log_tail.to(log_q.dtype).unsqueeze(-1)
        log_p = torch.cat([log_p, log_tail.clamp(min=term.objective.min_log_p(log_q.dtype))], -1)
        log_q = torch.cat([log_q, log_student_tail], -1)
    student_tail = log_student_tail.exp()
    loss, derivative = _divergence_and_derivative(term.objective, term.parameter, log_p, log_q, with_gradient)
    if term.log_tail is None:
        return BucketLosses(loss, derivative, zeros, student_tail)
    return BucketLosses(loss, derivative[:, :-1], derivative[:, -1:], student_tail)


def _divergence_and_derivative(
    objective: Objective, parameter: float | None, log_p: Tensor, log_q: Tensor, with_gradient: bool
) -> tuple[Tensor, Tensor]:
    """The divergence of each row, [R], and its derivative by log_q, [R, B] (meaningless without a gradient)."""
    if objective.derivative is not None:
        arguments = (log_p, log_q) if parameter is None else (log_p, log_q, parameter)
        return objective.value(log_p, log_q, parameter), objective.derivative(*arguments)
    # The hooks of a caller that uses checkpointing would recompute the caller's block for this small graph.
    with torch.enable_grad(), saved_tensors_hooks(_identity, _identity):
        log_q = log_q.detach().requires_grad_(with_gradient)
        loss = objective.value(log_p, log_q, parameter)
        derivative = torch.autograd.grad(loss.sum(), log_q)[0] if with_gradient else log_q
    return loss.detach(), derivative


def _identity(saved: Tensor) -> Tensor:
    return saved
