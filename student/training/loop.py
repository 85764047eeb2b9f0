"""The training loop of one rank."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from student.data.prefetch import Prefetcher
from student.data.window_reader import WindowReader
from student.losses.batch import Batch
from student.losses.normalisation import objective_weights, sum_coefficients, sum_row_weights, term_names
from student.models.attention.sequence_parallel import SequenceGroup
from student.training.engine.deepspeed_engine import Engine
from student.training.engine.skipped_steps import refuse_divergence, refuse_weights
from student.training.engine.speed import Arithmetic, SpeedMeter
from student.training.following import Following
from student.training.heldout_loss import BestStudent, Heldout
from student.training.mirror.checkpoint_copies import CheckpointCopies
from student.training.planning.inputs import TrainingInputs
from student.training.run_files import CHECKPOINTS
from student.training.samples import SampleWriter
from student.training.settings import TrainSettings
from student.training.steps.micro_batches import MicroBatch, divide
from student.training.steps.sequence_parts import data_rank, part_of
from student.training.steps.step_stream import StepStart, StepStream
from student.training.tracking.tracker import Tracker, finite_or_none

NOT_COUNTED = Arithmetic()


class LocalStep(NamedTuple):
    """One rank's micro-batches of a step.

    counts: int64 [4], for its examples: tokens, computed, real and without_loss of RunProgress.
    """

    batches: list[Batch]
    counts: Tensor


class StepSums(NamedTuple):
    """Sums of a step over all ranks.

    parts: float64 [terms], each term's part of the objective. weights: float64 [terms], of its rows. counts: as in
    LocalStep. learned: share of the rows that `min_student_entropy` kept; None if it decides about none.
    """

    parts: Tensor
    weights: Tensor
    counts: list[int]
    learned: float | None = None


@dataclass(frozen=True, slots=True)
class RunProgress:
    """How far a run is. Each checkpoint stores it.

    tokens: those that carried a loss. computed, real: positions that the model computed, and those of them that hold a
    token of an example; the others are padding. without_loss: examples of which no token carried a loss. seconds: time
    in the loop. waited: seconds that rank 0 waited for data. loss: objective of the last step, None if it was not
    finite. skipped: steps whose gradient was not finite, so that they changed nothing; skipped_in_a_row: those after
    the last other step. position: examples that were used, which is where the next step begins.
    """

    step: int = 0
    position: int = 0
    tokens: int = 0
    computed: int = 0
    real: int = 0
    without_loss: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    loss: float | None = None
    skipped: int = 0
    skipped_in_a_row: int = 0
    best: BestStudent = field(default_factory=BestStudent)

    def as_document(self) -> dict[str, Any]:
        """As checkpoints store it."""
        counts = ("step", "position", "tokens", "computed", "real", "without_loss", "skipped", "skipped_in_a_row")
        names = (*counts, "seconds", "waited", "loss")
        fields = {name: getattr(self, name) for name in names}
        return {**fields, "verdict": self.best.as_document()}

    @classmethod
    def from_document(cls, document: dict[str, Any] | None) -> "RunProgress":
        """What a checkpoint stored; the start of a run if there is none."""
        if not document:
            return cls()
        fields = {name: document[name] for name in ("step", "tokens", "seconds", "waited")}
        names = ("position", "computed", "real", "without_loss", "skipped", "skipped_in_a_row")
        counts = {name: document.get(name, 0) for name in names}
        best = BestStudent.from_document(document["verdict"])
        return cls(**fields, **counts, loss=document.get("loss"), best=best)

    @property
    def real_share(self) -> float:
        """Share of the computed positions that are no padding."""
        return self.real / max(self.computed, 1)


class Loop:
    """Steps from the checkpoint, or from the start, to the last step or to early stopping.

    save_best: called on every rank when the student is the best so far. copies: of the checkpoints, if the run has a
    mirror. arithmetic: of the model, for its MFU. group: ranks that share the tokens of each example, if they do.
    """

    def __init__(
        self,
        engine: Engine,
        inputs: TrainingInputs,
        settings: TrainSettings,
        save_best: Callable[[RunProgress], None],
        copies: CheckpointCopies | None = None,
        arithmetic: Arithmetic = NOT_COUNTED,
        group: SequenceGroup | None = None,
    ) -> None:
        self._copies = copies
        self._engine, self._batches, self._settings, self._save_best = engine, inputs.batches, settings, save_best
        self._progress = RunProgress.from_document(engine.progress)
        self._checkpoints, self._saved_step = settings.output / CHECKPOINTS, self._progress.step
        self._ranks = dist.get_world_size()
        self._speed = SpeedMeter(arithmetic, self._ranks, engine.device)
        self._group = group
        self._limit = settings.run.micro_batch_limit(self._ranks, settings.data.pack_to)
        self._steps = self._steps_from(self._progress)
        objectives = inputs.batches.objectives
        self._names, self._weights = term_names(objectives), objective_weights(objectives)
        heldout = settings.heldout
        self._following = None
        if settings.data.follow is not None and inputs.reopen is not None:
            self._following = Following(settings, inputs.batches, inputs.reopen, engine.device)
        self._samples = None
        if settings.samples is not None and inputs.samples:
            attention = inputs.attention if group is not None else None
            self._samples = SampleWriter(inputs.model, inputs.tokenizer, inputs.samples, settings.samples, attention)
        self._heldout = None
        if inputs.heldout and heldout:
            self._heldout = Heldout(inputs.heldout, heldout, settings.run, settings.data.pack_to, group)

    def run(self) -> RunProgress:
        """Train to the end. Returns at once if nothing is left to do."""
        run, progress = self._settings.run, self._progress
        if progress.step >= run.total_steps or progress.best.ends_run(self._settings.heldout):
            return progress
        tracker = Tracker(self._settings, progress.step) if dist.get_rank() == 0 else None
        started = time.monotonic() - progress.seconds
        try:
            if progress.step == 0:
                self._evaluate_at_start(tracker)
                self._write_samples(0, tracker)
            while progress.step < run.total_steps and not progress.best.ends_run(self._settings.heldout):
                until = run.total_steps
                if self._following is not None:
                    self._batches, until = self._following.batches_from(progress.step)
                progress = self._run_stretch(progress, until, tracker, started)
        finally:
            if tracker:
                tracker.close()
        return replace(progress, seconds=time.monotonic() - started)

    def _run_stretch(self, progress: RunProgress, until: int, tracker: Tracker | None, started: float) -> RunProgress:
        """The steps before `until`, from the batches that are open. started: of a run without breaks."""
        data, before = self._settings.data, progress
        self._steps = steps = self._steps_from(progress)
        reader = WindowReader(self._batches, self._examples_of, steps.start, progress.step, until)
        prefetcher = Prefetcher(partial(self._read_step, reader), progress.step, until, data.prefetch, data.readers)
        began = time.monotonic()
        try:
            for local in prefetcher:
                learning_rate = self._engine.learning_rate  # the optimizer's step sets that of the next step
                sums = self._step(local)
                tokens, computed, real, without_loss = sums.counts
                progress = replace(
                    progress,
                    step=progress.step + 1,
                    position=steps.start(progress.step + 1),
                    tokens=progress.tokens + tokens,
                    computed=progress.computed + computed,
                    real=progress.real + real,
                    without_loss=progress.without_loss + without_loss,
                    seconds=time.monotonic() - started,
                    waited=before.waited + prefetcher.waited,
                    loss=finite_or_none(float(sums.parts.sum())),
                    skipped=progress.skipped + (not self._engine.step_was_applied),
                    skipped_in_a_row=0 if self._engine.step_was_applied else progress.skipped_in_a_row + 1,
                )
                metrics = self._metrics(sums, progress, learning_rate, time.monotonic() - began)
                progress = self._finish_step(progress, metrics, tracker)
                began = time.monotonic()
                if progress.best.ends_run(self._settings.heldout):
                    break
        finally:
            prefetcher.close()
        return progress

    def _steps_from(self, progress: RunProgress) -> StepStream:
        """The steps after those that are done, of the batches that are open."""
        run, start = self._settings.run, StepStart(progress.position, progress.real)
        return StepStream(self._batches, run.step_size, run.seed, progress.step, start)

    def _micro_batches_of(self, step: int) -> list[MicroBatch]:
        """This rank's micro-batches of a step."""
        examples, pack_to = self._steps.examples(step), self._settings.data.pack_to
        sizes = self._batches.sizes[examples]
        rank, ranks = data_rank(self._group)
        return divide(examples, sizes, self._limit, rank, ranks, pack_to)

    def _examples_of(self, step: int) -> list[int]:
        """This rank's examples of a step."""
        return [example for group in self._micro_batches_of(step) for example in group.examples]

    def _read_step(self, reader: WindowReader, step: int) -> LocalStep:
        """Read and decode this rank's micro-batches of a step."""
        batches, groups = self._batches, self._micro_batches_of(step)
        reader.prepare(step)
        whole = [batches.batch(*group) for group in groups]
        read = [part_of(batch, self._group) for batch in whole]
        is_first = self._group is None or self._group.rank == 0  # the others have parts of the same examples
        counts = (
            sum(int((batch.weights > 0).any(0).sum()) for batch in read),
            sum(batch.positions for batch in read),
            is_first * sum(int(batches.sizes[group.examples].sum()) for group in groups if group.examples),
            is_first * sum(batch.without_loss for batch, group in zip(whole, groups, strict=True) if group.examples),
        )
        if self._engine.device.type == "cuda":
            read = [batch.pinned() for batch in read]
        return LocalStep(read, torch.tensor(counts))

    def _step(self, local: LocalStep) -> StepSums:
        """One update."""
        engine, batches = self._engine, local.batches
        weights = sum_row_weights(batches)
        totals = torch.cat([weights, local.counts.to(weights)]).to(engine.device)
        dist.all_reduce(totals)
        weights, counts = totals[: len(weights)], totals[len(weights) :]
        factors = sum_coefficients(self._batches.objectives, weights)
        parts, learned = (torch.zeros(size, device=engine.device) for size in (len(self._names), 2))
        for number, batch in enumerate(batches, start=1):
            engine.begin_micro_batch(ends_step=number == len(batches))
            sums = engine.forward(batch.to(engine.device), factors)
            engine.backward(sums.objective)
            engine.step()
            parts += sums.parts.float()
            learned += sums.learned
        reduced = torch.cat([parts, learned])
        dist.all_reduce(reduced)
        *sums_of_terms, kept, rows = reduced.double().cpu()
        share = float(kept / rows) if rows else None
        return StepSums(torch.stack(sums_of_terms), weights.cpu(), counts.long().tolist(), share)

    def _metrics(self, sums: StepSums, progress: RunProgress, learning_rate: float, seconds: float) -> dict[str, Any]:
        """Metrics of a step: the objective, and each term's mean in nats, before weight and T^2. seconds: it took."""
        means, counts = (sums.parts / self._weights).tolist(), sums.weights.tolist()
        terms = {name: mean for name, mean, count in zip(self._names, means, counts, strict=True) if count}
        tokens, computed, real, without_loss = sums.counts
        return {
            "objective": progress.loss,
            **terms,
            "lr": learning_rate,
            "gradient_norm": self._engine.gradient_norm,
            "tokens": progress.tokens,
            "real_token_share": round(real / max(computed, 1), 4),
            **({} if sums.learned is None else {"learned_token_share": round(sums.learned, 4)}),
            **({"examples_without_loss": without_loss} if without_loss else {}),
            "skipped_steps": progress.skipped,
            **self._speed.metrics(tokens, real, seconds),
            "seconds": round(progress.seconds, 3),
            "data_wait_seconds": round(progress.waited, 3),
            **({"snapshot": self._following.snapshot} if self._following else {}),
        }

    def _finish_step(self, progress: RunProgress, metrics: dict[str, Any], tracker: Tracker | None) -> RunProgress:
        """Evaluate, log and save a checkpoint where it is time for it. Returns the progress with the best student."""
        run, heldout = self._settings.run, self._settings.heldout
        is_last = progress.step == run.total_steps
        if self._heldout and heldout and (progress.step % heldout.every == 0 or is_last):
            progress, heldout_metrics = self._evaluate(self._heldout, progress)
            metrics |= heldout_metrics
        if tracker:
            tracker.log_step(progress.step, metrics)
        refuse_divergence(progress.step, progress.skipped_in_a_row, run, self._checkpoints)
        is_end = is_last or progress.best.ends_run(heldout)
        if self._samples is not None and self._samples.is_due(progress.step, is_end):
            self._write_samples(progress.step, tracker)
        self._save_where_due(progress, is_end)
        return progress

    def _write_samples(self, step: int, tracker: Tracker | None) -> None:
        """Let the student write texts, if the job asks for them. Every rank must call it."""
        if self._samples is not None:
            samples = self._samples.write(self._engine)
            if tracker:
                tracker.log_samples(step, samples)

    def _save_where_due(self, progress: RunProgress, is_end: bool) -> None:
        """Write a checkpoint where it is time for it. Raises DivergenceError if the weights are not finite.

        Not after a step that changed nothing: it may be the first of many. The next other step makes up for it.
        """
        every = self._settings.run.checkpoint_every
        is_due = is_end or progress.step // every > self._saved_step // every
        if not is_due or (progress.skipped_in_a_row and not is_end):
            return
        if not self._engine.weights_are_finite():
            refuse_weights(progress.step, self._checkpoints)
        if not progress.skipped_in_a_row:
            if self._copies is not None:
                self._copies.wait()  # the oldest checkpoint is about to be removed
            self._engine.save(progress.step, progress.as_document())
            if self._copies is not None:
                self._copies.send(progress.step)
            self._saved_step = progress.step

    def _evaluate_at_start(self, tracker: Tracker | None) -> None:
        """Log the held-out loss of the student that nothing was taught yet, if the job asks for it."""
        if self._heldout is None or self._settings.heldout is None or not self._settings.heldout.at_start:
            return
        started = time.monotonic()
        metrics = self._heldout_metrics(*self._heldout.loss(self._engine))
        if tracker:
            tracker.log_start({"objective": None, "tokens": 0, "seconds": time.monotonic() - started, **metrics})

    def _heldout_metrics(self, objective: float, means: Sequence[float]) -> dict[str, Any]:
        terms = {f"heldout_{name}": mean for name, mean in zip(self._names, means, strict=True)}
        return {"heldout_objective": objective, **terms}

    def _evaluate(self, heldout: Heldout, progress: RunProgress) -> tuple[RunProgress, dict[str, float]]:
        """Compute the held-out loss, and save the student if it is the best so far."""
        objective, means = heldout.loss(self._engine)
        progress = replace(progress, best=progress.best.after_evaluation(progress.step, objective))
        if progress.best.step == progress.step:
            self._save_best(progress)
        return progress, self._heldout_metrics(objective, means)
