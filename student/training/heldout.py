"""Held-out loss while training, and which student is the best so far."""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist

from student.data.batches import Batches
from student.losses.batch_terms import counts_of, objective_weights
from student.training.engine import Engine
from student.training.settings import HeldoutSettings, RunSettings


@dataclass(frozen=True, slots=True)
class Verdict:
    """The best held-out loss so far, its step, and the evaluations since then without a better one."""

    best_step: int | None = None
    best_loss: float | None = None
    since: int = 0

    def after(self, step: int, loss: float) -> "Verdict":
        if self.best_loss is None or loss < self.best_loss or math.isnan(self.best_loss):
            return Verdict(step, loss, 0)
        return Verdict(self.best_step, self.best_loss, self.since + 1)

    def stops(self, settings: HeldoutSettings | None) -> bool:
        """Whether patience is at its end."""
        return bool(settings and settings.patience is not None and self.since >= settings.patience)


class Heldout:
    """Held-out examples in this rank's micro-batches; every rank has as many, since ZeRO-3 works in step."""

    def __init__(self, batches: Batches, settings: HeldoutSettings, run: RunSettings) -> None:
        self._batches = batches
        count = min(settings.limit, len(batches.sizes))
        order = np.argsort(batches.sizes[:count], kind="stable")
        rank, ranks = dist.get_rank(), dist.get_world_size()
        together = ranks * run.micro_batch_size
        groups = [order[start : start + together] for start in range(0, count, together)]
        self._groups = [group[rank::ranks] for group in groups]
        # Of a last group that is too small for all ranks, those without a share evaluate its first example for nothing.
        self._spare = [int(group[0]) for group in groups]

    @torch.no_grad()
    def loss(self, engine: Engine) -> tuple[float, list[float]]:
        """The objective, and the mean of each of its terms in nats; the same on every rank."""
        terms = len(self._batches.objectives.terms)
        sums = torch.zeros(2, terms, dtype=torch.float64)
        for group, spare in zip(self._groups, self._spare, strict=True):
            batch = self._batches.batch(group.tolist() or [spare]).to(engine.device)
            parts = engine.forward(batch, torch.ones(terms, device=engine.device)).parts
            if len(group):
                sums += torch.stack([parts.double().cpu(), counts_of([batch]).cpu()])
        moved = sums.to(engine.device)
        dist.all_reduce(moved)
        means = (moved[0] / moved[1].clamp(min=1e-12)).cpu()
        return float((means * objective_weights(self._batches.objectives)).sum()), means.tolist()
