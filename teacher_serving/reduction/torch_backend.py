"""The reduction in plain torch: for GPUs without Triton's kernels, and to compare the kernels with.

It makes dozens of passes over the logits and needs several times their memory.
"""

import math
from dataclasses import dataclass

import torch

from cache.rows.level_grid import LOWEST_LOGPROB
from cache.rows.spec import TargetSpec

# Cumulative sums are in integers, because CUDA adds floating point numbers in another order at each run. Weights are at
# most 1, so sums of up to 2**21 of them fit into 63 bits.
FIXED_POINT = 2.0**42


@dataclass(frozen=True, slots=True)
class ReducedBlock:
    """Rows as rectangles. ids int64 and logprobs float32 [n, max_entries]; a row has the first counts[i] entries.

    exact, counts: int64 [n]; counts is -1 for a row without a finite distribution. log_tail, token_logprobs,
    entropy: float32 [n].
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
    logits: torch.Tensor, next_tokens: torch.Tensor, uniforms: torch.Tensor, targets: TargetSpec
) -> ReducedBlock:
    """Reduce float32 logits [n, vocabulary] on their device; see reduction.Reducer for the arguments."""
    n, vocabulary = logits.shape
    # Differences to the largest logit keep their precision for logits of any size.
    peak = logits.amax(-1, keepdim=True)
    weights = (logits - peak).exp_()
    total = weights.sum(-1, keepdim=True, dtype=torch.float64)
    log_total = total.log().float()
    finite = torch.isfinite(log_total[:, 0])
    token_logprobs = torch.full((n,), math.nan, device=logits.device)
    has_next = next_tokens >= 0
    token_logprobs[has_next] = (
        logits[has_next].gather(1, next_tokens[has_next, None]) - peak[has_next] - log_total[has_next]
    )[:, 0].clamp(max=0)
    entropy = torch.full((n,), math.nan, device=logits.device)
    if targets.entropy:
        mean = torch.where(weights > 0, weights * (logits - peak), 0.0).sum(-1) / total[:, 0]
        entropy = (log_total[:, 0] - mean).float()
    normalizers = [torch.logsumexp((logits - peak) / t, dim=-1) - log_total[:, 0] / t for t in targets.temperatures]
    log_normalizers = torch.stack(normalizers, 1) if normalizers else torch.zeros((n, 0), device=logits.device)
    max_entries = min(targets.max_entries, vocabulary)
    if targets.mode == "sampled":
        ids, logprobs, counts = _draws(weights, uniforms)
        exact, tail = torch.zeros_like(counts), total[:, 0]
    else:
        values, ids = _largest(logits, max_entries)
        logprobs = (values - peak - log_total).clamp(max=0)
        is_exact = logprobs >= (math.log(targets.threshold) if targets.mode == "threshold" else LOWEST_LOGPROB)
        if targets.mode == "nucleus":
            heads = torch.exp(logprobs.double())
            is_exact &= heads.cumsum(-1) - heads < targets.mass
        exact = is_exact.sum(-1)
        weights.scatter_(1, ids, torch.where(is_exact, 0.0, weights.gather(1, ids)))
        # Without exact entries the tail is exactly the total. A sum in another order would differ in the last digit.
        tail = torch.where(exact > 0, weights.sum(-1, dtype=torch.float64), total[:, 0])
        counts = exact
        if targets.mode == "threshold":
            ids, logprobs, counts = _systematic(weights, uniforms, targets.threshold, total, ids, logprobs, exact)
    log_tail = torch.log(tail / total[:, 0]).clamp(max=0).float()
    counts = torch.where(finite, counts, -1)
    return ReducedBlock(ids, logprobs, exact, counts, log_tail, token_logprobs, entropy, log_normalizers)


def _largest(logits: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the k largest logits of each row in falling order, and their ids; of equal logits the smaller id first."""
    values, ids = logits.topk(k, dim=-1)
    # topk takes any of the logits that equal the smallest it returns.
    least = values[:, -1:]
    every_id = torch.arange(logits.shape[1], dtype=torch.int32, device=logits.device)
    first = torch.where(logits == least, every_id, logits.shape[1]).topk(k, dim=-1, largest=False).values
    is_least = values == least
    ids = torch.where(is_least, first.gather(1, (is_least.cumsum(-1) - 1).clamp(min=0)), ids)
    order = ids.argsort(dim=-1)
    values, ids = values.gather(1, order), ids.gather(1, order)
    values, order = values.sort(dim=-1, descending=True, stable=True)
    return values, ids.gather(1, order)


def _cumulative(weights: torch.Tensor) -> torch.Tensor:
    """Cumulative sums of weights, int64 in units of 1 / FIXED_POINT. A weight below half of that has none."""
    return (weights.nan_to_num(0.0).double() * FIXED_POINT).round_().long().cumsum(-1)


def _draws(weights: torch.Tensor, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return ids, estimated log-probabilities and number of distinct ids of draws from each row of weights."""
    n, draws = uniforms.shape
    sums = _cumulative(weights)
    points = (uniforms.double() * sums[:, -1:]).long()
    drawn = torch.searchsorted(sums, points, right=True).clamp(max=weights.shape[1] - 1).sort(-1).values
    is_new = torch.ones_like(drawn, dtype=torch.bool)
    is_new[:, 1:] = drawn[:, 1:] != drawn[:, :-1]
    slot = is_new.cumsum(-1) - 1
    ids = torch.zeros_like(drawn).scatter(1, slot, drawn)
    repeats = torch.zeros((n, draws), device=weights.device).scatter_add(
        1, slot, torch.ones_like(points, dtype=torch.float32)
    )
    return ids, torch.log(repeats / draws), is_new.sum(-1)


def _systematic(
    weights: torch.Tensor,
    uniforms: torch.Tensor,
    threshold: float,
    total: torch.Tensor,
    ids: torch.Tensor,
    logprobs: torch.Tensor,
    exact: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Append the ids at which the cumulative sum of the tail passes u, u + 1, ... thresholds to the exact entries."""
    sums = _cumulative(weights) / FIXED_POINT
    passed = torch.ceil(sums / (threshold * total) - uniforms.double()).clamp(min=0)
    is_drawn = passed.diff(dim=-1, prepend=torch.zeros_like(passed[:, :1])) > 0
    rows, tokens = is_drawn.nonzero(as_tuple=True)
    number = is_drawn.cumsum(-1)[rows, tokens] - 1
    fits = number + exact[rows] < ids.shape[1]
    rows, tokens, column = rows[fits], tokens[fits], (number + exact[rows])[fits]
    ids, logprobs = ids.clone(), logprobs.clone()
    ids[rows, column] = tokens
    logprobs[rows, column] = math.log(threshold)
    return ids, logprobs, exact + torch.bincount(rows, minlength=len(exact))
