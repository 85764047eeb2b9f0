"""The reduction in plain torch: what a GPU runs, and what the compiled loops are held against."""

import math
from dataclasses import dataclass

import torch

from cache.rows.level_grid import LOWEST_LOGPROB
from cache.rows.spec import TargetSpec


@dataclass(frozen=True, slots=True)
class ReducedBlock:
    """Rows as rectangles. ids int64 and logprobs float32 [n, most]; the first counts[i] of a row are its entries.

    exact, counts: int64 [n]; counts is -1 for a row without a finite distribution. log_tail, own, entropy: float32 [n].
    log_normalizers: float32 [n, temperatures].
    """

    ids: torch.Tensor
    logprobs: torch.Tensor
    exact: torch.Tensor
    counts: torch.Tensor
    log_tail: torch.Tensor
    token_logprobs: torch.Tensor
    entropy: torch.Tensor
    log_normalizers: torch.Tensor


def reduce_block(
    logits: torch.Tensor, following: torch.Tensor, uniforms: torch.Tensor, targets: TargetSpec
) -> ReducedBlock:
    """Reduce float32 logits [n, vocabulary] on their device; see reduction.Reducer for the arguments."""
    n, vocabulary = logits.shape
    # Differences to the largest logit keep their digits wherever the logits lie.
    peak = logits.amax(-1, keepdim=True)
    weights = (logits - peak).exp_()
    total = weights.sum(-1, keepdim=True, dtype=torch.float64)
    log_total = total.log().float()
    finite = torch.isfinite(log_total[:, 0])
    own = torch.full((n,), math.nan, device=logits.device)
    known = following >= 0
    own[known] = (logits[known].gather(1, following[known, None]) - peak[known] - log_total[known])[:, 0].clamp(max=0)
    entropy = torch.full((n,), math.nan, device=logits.device)
    if targets.entropy:
        mean = torch.where(weights > 0, weights * (logits - peak), 0.0).sum(-1) / total[:, 0]
        entropy = (log_total[:, 0] - mean).float()
    normalizers = [torch.logsumexp((logits - peak) / t, dim=-1) - log_total[:, 0] / t for t in targets.temperatures]
    log_normalizers = torch.stack(normalizers, 1) if normalizers else torch.zeros((n, 0), device=logits.device)
    most = min(targets.max_entries, vocabulary)
    if targets.mode == "sampled":
        ids, logprobs, counts = _draws(weights, uniforms)
        exact, rest = torch.zeros_like(counts), total[:, 0]
    else:
        values, ids = logits.topk(most, dim=-1)
        logprobs = (values - peak - log_total).clamp(max=0)
        held = logprobs >= (math.log(targets.threshold) if targets.mode == "threshold" else LOWEST_LOGPROB)
        if targets.mode == "nucleus":
            heads = torch.exp(logprobs.double())
            held &= heads.cumsum(-1) - heads < targets.mass
        exact = held.sum(-1)
        weights.scatter_(1, ids, torch.where(held, 0.0, weights.gather(1, ids)))
        # Without a head all is left, exactly: a sum of another order would say a digit less.
        rest = torch.where(exact > 0, weights.sum(-1, dtype=torch.float64), total[:, 0])
        counts = exact
        if targets.mode == "threshold":
            ids, logprobs, counts = _systematic(weights, uniforms, targets.threshold, total, ids, logprobs, exact)
    log_tail = torch.log(rest / total[:, 0]).clamp(max=0).float()
    counts = torch.where(finite, counts, -1)
    return ReducedBlock(ids, logprobs, exact, counts, log_tail, own, entropy, log_normalizers)


def _draws(weights: torch.Tensor, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, estimated log-probabilities and number of different ids of independent draws from each row of weights."""
    n, draws = uniforms.shape
    sums = weights.cumsum(-1, dtype=torch.float64)
    points = uniforms.double() * sums[:, -1:]
    drawn = torch.searchsorted(sums, points, right=True).clamp(max=weights.shape[1] - 1).sort(-1).values
    fresh = torch.ones_like(drawn, dtype=torch.bool)
    fresh[:, 1:] = drawn[:, 1:] != drawn[:, :-1]
    place = fresh.cumsum(-1) - 1
    ids = torch.zeros_like(drawn).scatter(1, place, drawn)
    times = torch.zeros((n, draws), device=weights.device).scatter_add(
        1, place, torch.ones_like(points, dtype=torch.float32)
    )
    return ids, torch.log(times / draws), fresh.sum(-1)


def _systematic(
    weights: torch.Tensor,
    uniforms: torch.Tensor,
    threshold: float,
    total: torch.Tensor,
    ids: torch.Tensor,
    logprobs: torch.Tensor,
    exact: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Append to the exact entries the ids at which the running sum of the rest passes u, u + 1, ... thresholds."""
    sums = weights.cumsum(-1, dtype=torch.float64)
    passed = torch.ceil(sums / (threshold * total) - uniforms.double()).clamp(min=0)
    met = passed.diff(dim=-1, prepend=torch.zeros_like(passed[:, :1])) > 0
    rows, found = met.nonzero(as_tuple=True)
    number = met.cumsum(-1)[rows, found] - 1
    room = number + exact[rows] < ids.shape[1]
    rows, found, column = rows[room], found[room], (number + exact[rows])[room]
    ids, logprobs = ids.clone(), logprobs.clone()
    ids[rows, column] = found
    logprobs[rows, column] = math.log(threshold)
    return ids, logprobs, exact + torch.bincount(rows, minlength=len(exact))
