"""Rows in float64, and how far a reduction is from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.reduction.cases import Case

Array = npt.NDArray[Any]
CHECKED = 24


@dataclass(frozen=True, slots=True)
class Truth:
    """Log-probabilities of some rows, float64 [CHECKED, vocabulary], and their ids by falling logit and rising id."""

    rows: npt.NDArray[np.int64]
    log_p: npt.NDArray[np.float64]
    order: npt.NDArray[np.int64]

    @classmethod
    def of(cls, logits: torch.Tensor) -> "Truth":
        rows = np.unique(np.linspace(0, len(logits) - 1, CHECKED).astype(np.int64))
        some = logits[torch.from_numpy(rows).to(logits.device)].double()
        order = some.sort(dim=-1, descending=True, stable=True).indices
        return cls(rows, some.log_softmax(-1).cpu().numpy(), order.cpu().numpy())


def problems(case: Case, arrays: Mapping[str, Any], truth: Truth) -> list[str]:
    """What is wrong with the arrays of a reduction on the rows of `truth`; [] if nothing is.

    Log-probabilities may differ by 2e-5 nats, the mass of a tail by 1e-4 of it. Which of two ids a draw selects may
    differ where the point lies within 1e-6 of their boundary.
    """
    found: list[str] = []
    for i, row in enumerate(truth.rows):
        one = {name: np.asarray(values[row]) for name, values in arrays.items()}
        found += [f"row {row}: {what}" for what in _row_problems(case, one, truth.log_p[i], truth.order[i], int(row))]
    return found


def _row_problems(case: Case, row: Mapping[str, Any], log_p: Array, order: Array, number: int) -> list[str]:
    targets, found = case.targets, []
    exact, count = int(row["exact"]), int(row["counts"])
    ids, values = row["ids"][:count], row["logprobs"][:count].astype(np.float64)
    wanted = _exact_entries(case, log_p[order])
    if not wanted[0] <= exact <= wanted[1]:
        return [f"{exact} exact entries, not {wanted[0]} to {wanted[1]}"]
    if not np.allclose(values[:exact], log_p[order[:exact]], rtol=0, atol=2e-5):
        found.append("log-probabilities are not the largest")
    if not np.allclose(log_p[ids[:exact]], log_p[order[:exact]], rtol=0, atol=1e-9):
        found.append("ids are not those of the largest")
    rest = np.exp(np.delete(log_p, ids[:exact])).sum()
    if abs(np.exp(np.float64(row["log_tail"])) - rest) > 1e-4 * rest:
        found.append(f"tail {np.exp(np.float64(row['log_tail']))}, not {rest}")
    if abs(row["token_logprobs"] - log_p[int(case.next_tokens[number])]) > 2e-5 * max(1, -row["token_logprobs"]):
        found.append("log-probability of the next token")
    p = np.exp(log_p)
    if targets.entropy and abs(row["entropy"] + (p * log_p).sum()) > 2e-5:
        found.append("entropy")
    for value, temperature in zip(row["log_normalizers"], targets.temperatures, strict=True):
        if abs(value - np.log(np.exp(log_p / temperature).sum())) > 2e-5:
            found.append(f"log-normaliser at {temperature}")
    if targets.has_sampled:
        found += _draw_problems(case, ids[exact:], values[exact:], p, ids[:exact], number)
    return found


def _exact_entries(case: Case, falling: Array) -> tuple[int, int]:
    """Fewest and most exact entries: bounds may move by 1e-5."""
    targets, p = case.targets, np.exp(falling)
    if targets.mode == "sampled":
        return 0, 0
    if targets.mode == "threshold":
        return int((p >= targets.threshold * (1 + 1e-5)).sum()), int((p >= targets.threshold * (1 - 1e-5)).sum())
    p = p[: targets.k]
    if targets.mode == "topk":
        return len(p), len(p)
    before = p.cumsum() - p
    return int((before < targets.mass - 1e-5).sum()), int((before < targets.mass + 1e-5).sum())


def _draw_problems(case: Case, ids: Array, values: Array, p: Array, head: Array, number: int) -> list[str]:
    targets, numbers = case.targets, case.uniforms[number].cpu().numpy()
    weights = p.copy()
    weights[head] = 0
    sums = weights.cumsum()
    if targets.mode == "sampled":
        points = np.sort(numbers) * sums[-1]
    else:
        points = np.arange(len(p)) * targets.threshold + numbers[0] * targets.threshold
        points = points[points < sums[-1]]
    earliest = np.searchsorted(sums, points - 1e-6, "right")
    latest = np.searchsorted(sums, points + 1e-6, "right")
    if (np.diff(ids) <= 0).any():
        return ["drawn ids do not ascend"]
    repeats = np.rint(np.exp(values) * targets.draws).astype(int) if targets.draws else np.ones(len(ids), int)
    drawn = np.repeat(ids, repeats)
    if len(drawn) != len(points) and not (targets.mode == "threshold" and abs(len(drawn) - len(points)) <= 1):
        return [f"{len(drawn)} draws, not {len(points)}"]
    n = min(len(drawn), len(points))
    if ((drawn[:n] < earliest[:n]) | (drawn[:n] > latest[:n])).any():
        return ["drawn ids are not where the points lie"]
    return []
