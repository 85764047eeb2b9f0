"""The held-out loss while training, and the best student so far."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from student.data.batches import Batches
from student.losses.normalisation import objective_weights, sum_row_weights
from student.models.attention.sequence_parallel import SequenceGroup
from student.training.engine.deepspeed_engine import Engine
from student.training.run_settings import RunSettings
from student.training.settings import HeldoutSettings
from student.training.steps.micro_batches import divide
from student.training.steps.sequence_parts import data_rank, part_of


@dataclass(frozen=True, slots=True)
class BestStudent:
    """The step with the lowest held-out loss so far, its loss, and the number of evaluations since then."""

    step: int | None = None
    loss: float | None = None
    evaluations_since: int = 0

    def after_evaluation(self, step: int, loss: float) -> "BestStudent":
        """The best student once `step` was evaluated. A loss that is not finite is never the best."""
        if math.isfinite(loss) and (self.loss is None or loss < self.loss or not math.isfinite(self.loss)):
            return BestStudent(step, loss, 0)
        return BestStudent(self.step, self.loss, self.evaluations_since + 1)

    def ends_run(self, settings: HeldoutSettings | None) -> bool:
        """Whether the run stops early: `patience` evaluations did not improve the loss."""
        return bool(settings and settings.patience is not None and self.evaluations_since >= settings.patience)

    def as_document(self) -> dict[str, Any]:
        """As checkpoints store it."""
        return {"best_step": self.step, "best_loss": self.loss, "since": self.evaluations_since}

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "BestStudent":
        """What a checkpoint stored."""
        return cls(document["best_step"], document["best_loss"], document["since"])


class Heldout:
    """Held-out examples in this rank's micro-batches. Every rank has the same number: ZeRO-3 needs all ranks."""

    def __init__(
        self,
        batches: Batches,
        settings: HeldoutSettings,
        run: RunSettings,
        pack_to: int | None = None,
        group: SequenceGroup | None = None,
    ) -> None:
        self._batches = batches
        examples = np.arange(min(settings.limit, len(batches.sizes)))
        limit = run.micro_batch_limit(dist.get_world_size(), pack_to)
        self._groups = divide(examples, batches.sizes[examples], limit, *data_rank(group), pack_to)
        self._group = group

    @torch.no_grad()
    def loss(self, engine: Engine) -> tuple[float, list[float]]:
        """The objective, and the mean of each term in nats. The same on every rank."""
        terms = len(self._batches.objectives.terms)
        sums = torch.zeros(2, terms, dtype=torch.float64)
        for group in self._groups:
            batch = part_of(self._batches.batch(*group), self._group).to(engine.device)
            parts = engine.forward(batch, torch.ones(terms, device=engine.device)).parts
            sums += torch.stack([parts.double().cpu(), sum_row_weights([batch]).cpu()])
        reduced = sums.to(engine.device)
        dist.all_reduce(reduced)
        means = (reduced[0] / reduced[1].clamp(min=1e-12)).cpu()
        return float((means * objective_weights(self._batches.objectives)).sum()), means.tolist()
