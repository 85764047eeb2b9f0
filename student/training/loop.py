"""The training loop of one rank. Needs RANK, WORLD_SIZE and MASTER_ADDR set; who starts the ranks is no matter here."""

import shutil
import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
import torch.distributed as dist

from cache.documents import write_json
from student.data.prefetch import Prefetcher
from student.losses.batch import Batch
from student.losses.batch_terms import coefficients, counts_of, objective_weights, term_names
from student.models.loss_model import LossModel
from student.training.engine import Engine, start_ranks
from student.training.export import model_card, save_student, write_card
from student.training.heldout import Heldout, Verdict
from student.training.metrics_log import Tracker
from student.training.micro_batches import window_of
from student.training.prepare import Prepared, prepare
from student.training.run_files import BEST, CHECKPOINTS, MODEL, RESULT
from student.training.settings import TrainSettings


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a finished run reports.

    tokens: those that carried a loss. seconds: time in the loop, over all restarts; data_wait_share: of it, what rank 0
    waited for data. best_step, best_loss: of the student that was kept, where there are held-out examples.
    stores: where the examples came from.
    """

    steps: int
    examples: int
    examples_left_out: int
    tokens: int
    seconds: float
    tokens_per_s: float
    data_wait_share: float
    parameters: int
    trained_parameters: int
    best_step: int | None
    best_loss: float | None
    stores: list[dict[str, Any]]
    notes: str


@dataclass(frozen=True, slots=True)
class RunProgress:
    """How far a run is; saved with each checkpoint. waited: seconds of rank 0."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    verdict: Verdict = field(default_factory=Verdict)

    @classmethod
    def from_document(cls, saved: dict[str, Any] | None) -> "RunProgress":
        if not saved:
            return cls()
        fields = {name: saved[name] for name in ("step", "tokens", "seconds", "waited")}
        return cls(**fields, verdict=Verdict(**saved["verdict"]))


def train(settings: TrainSettings) -> TrainResult:
    """Train, or continue, and leave the student in Hugging Face form in `output`/model. Call it on every rank."""
    start_ranks()
    prepared = prepare(settings)
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in prepared.model.parameters()]
    loss_model = LossModel(prepared.model, prepared.batches.objectives)
    engine = Engine(loss_model, settings.optimizer, settings.run, settings.output / CHECKPOINTS)
    done = Loop(engine, prepared, settings).run()
    result = TrainResult(
        steps=done.step,
        examples=prepared.examples,
        examples_left_out=prepared.left_out,
        tokens=done.tokens,
        seconds=done.seconds,
        tokens_per_s=done.tokens / done.seconds,
        data_wait_share=done.waited / done.seconds,
        parameters=sum(count for count, _ in sizes),
        trained_parameters=sum(count for count, learns in sizes if learns),
        best_step=done.verdict.best_step,
        best_loss=done.verdict.best_loss,
        stores=prepared.stores,
        notes=prepared.notes,
    )
    card = model_card(settings, asdict(result))
    folder, best = settings.output / MODEL, settings.output / BEST
    if done.verdict.best_step is None:
        _save(engine, prepared, card, settings.output / MODEL)
    elif dist.get_rank() == 0 and best.exists():  # else an earlier end of this run has moved it
        write_card(card, best)
        shutil.rmtree(folder, ignore_errors=True)
        best.rename(folder)
    if dist.get_rank() == 0:
        write_json(settings.output / RESULT, asdict(result))
    dist.barrier()
    return result


class Loop:
    """Steps from where a checkpoint stands to the end, or to where patience ends."""

    def __init__(self, engine: Engine, prepared: Prepared, settings: TrainSettings) -> None:
        self._engine, self._prepared, self._settings = engine, prepared, settings
        self._done = RunProgress.from_document(engine.progress)
        objectives = prepared.batches.objectives
        self._names, self._weights = term_names(objectives), objective_weights(objectives)
        held = settings.heldout
        self._heldout = Heldout(prepared.heldout, held, settings.run) if prepared.heldout and held else None

    def run(self) -> RunProgress:
        run, data = self._settings.run, self._settings.data
        done = self._done
        if done.step == run.steps or done.verdict.stops(self._settings.heldout):
            return done
        tracker = Tracker(self._settings, done.step) if dist.get_rank() == 0 else None
        loader = Prefetcher(self._batches_of, done.step, run.steps, data.prefetch, data.readers)
        before, started = done, time.monotonic()
        try:
            for batches in loader:
                rate = self._engine.learning_rate  # the step moves it on to the next one's
                tokens, parts, counts = self._step(batches)
                done = RunProgress(
                    done.step + 1,
                    done.tokens + tokens,
                    before.seconds + time.monotonic() - started,
                    before.waited + loader.waited,
                    done.verdict,
                )
                values = self._values(parts, counts, done, rate)
                if self._heldout and (done.step % self._settings.heldout.every == 0 or done.step == run.steps):  # type: ignore[union-attr]
                    done, found = self._evaluate(done)
                    values |= found
                if tracker:
                    tracker.step(done.step, values)
                stops = done.verdict.stops(self._settings.heldout)
                if done.step % run.checkpoint_every == 0 or done.step == run.steps or stops:
                    self._engine.save(done.step, {**asdict(done), "verdict": asdict(done.verdict)})
                if stops:
                    break
        finally:
            loader.close()
            if tracker:
                tracker.close()
        return replace(done, seconds=before.seconds + time.monotonic() - started)

    def _batches_of(self, step: int) -> list[Batch]:
        batches = self._prepared.batches
        groups = window_of(step, batches, self._settings.run, dist.get_rank(), dist.get_world_size())
        return [batches.batch(group) for group in groups]

    def _step(self, batches: list[Batch]) -> tuple[int, torch.Tensor, torch.Tensor]:
        """One update. Returns, over all ranks: tokens, each term's part of the objective, the sum of its weights."""
        engine = self._engine
        counted = torch.cat([counts_of(batches), torch.tensor([sum(len(batch.rows) for batch in batches)])])
        counts = counted.to(engine.device)
        dist.all_reduce(counts)
        factors = coefficients(self._prepared.batches.objectives, counts[:-1])
        parts = torch.zeros(len(self._names), device=engine.device)
        for batch in batches:
            sums = engine.forward(batch.to(engine.device), factors)
            engine.backward(sums.objective)
            engine.step()
            parts += sums.parts.float()
        dist.all_reduce(parts)
        return int(counts[-1]), parts.double().cpu(), counts[:-1].cpu()

    def _values(self, parts: torch.Tensor, counts: torch.Tensor, done: RunProgress, rate: float) -> dict[str, Any]:
        """Metrics of a step: the objective, and each term's mean in nats, before weight and T^2."""
        means = (parts / self._weights).tolist()
        terms = {name: mean for name, mean, count in zip(self._names, means, counts.tolist(), strict=True) if count}
        return {
            "objective": float(parts.sum()),
            **terms,
            "lr": rate,
            "gradient_norm": self._engine.gradient_norm,
            "tokens": done.tokens,
            "seconds": round(done.seconds, 3),
            "data_wait_seconds": round(done.waited, 3),
        }

    def _evaluate(self, done: RunProgress) -> tuple[RunProgress, dict[str, float]]:
        """Held-out loss; the best student so far is saved."""
        assert self._heldout is not None
        objective, means = self._heldout.loss(self._engine)
        done = replace(done, verdict=done.verdict.after(done.step, objective))
        if done.verdict.best_step == done.step:
            facts = {**asdict(done), **asdict(done.verdict), "steps": done.step}
            facts["stores"] = self._prepared.stores
            _save(self._engine, self._prepared, model_card(self._settings, facts), self._settings.output / BEST)
        named = {f"heldout_{name}": mean for name, mean in zip(self._names, means, strict=True)}
        return done, {"heldout_objective": objective, **named}


def _save(engine: Engine, prepared: Prepared, card: str, folder: Any) -> None:
    """Whole weights from all ranks, written by the first."""
    weights = {name.removeprefix("model."): weight for name, weight in engine.full_weights().items()}
    if dist.get_rank() == 0:
        save_student(prepared.model, weights, prepared.tokenizer, card, folder)
    dist.barrier()
