"""The capture driver: what is missing, who captures it, what it came to."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from cache.errors import InputError
from cache.examples.jsonl import BadExample, read_examples
from cache.rows.spec import StoreSpec
from cache.storage.base import Storage
from cache.storage.open import open_storage
from cache.store.commits import (
    SPEC,
    committed_units,
    create_store,
    quarantine_example,
    quarantined_keys,
    read_commit,
    read_spec,
)
from cache.store.snapshots import take_snapshot
from cluster.capture.actor import UNITS_PER_WORKER, start_worker
from cluster.capture.dispatch import Dispatcher, examples_in_progress, wait_ready
from cluster.capture.run_log import RunLog
from cluster.capture.settings import CaptureSettings
from cluster.job.progress_bars import bar
from cluster.job.ray_session import cluster_has_gpus, ray_session, require_cpus, require_gpus
from teacher_serving.asking.plan import SCORED_ORIGIN, Limits, Plan, PlannedExample, plan_capture, reject_lines
from teacher_serving.capture.teacher import describe
from teacher_serving.capture.unit import UnitSummary
from teacher_serving.engines.description import TeacherDescription


@dataclass(frozen=True, slots=True)
class CaptureOutcome:
    """What one run of the job did. seconds: from the first unit given out to the last committed, engines started.

    examples: those of the job that the store now holds. refused: all in its quarantine.
    cost: what a service took for the units, by the prices of the job.
    """

    examples: int
    captured: int
    refused: int
    truncated: int
    rows: int
    seconds: float
    start_seconds: float
    snapshot: int
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class Work:
    """A job against the store as it is: who is asked, for what, and the units that are missing."""

    description: TeacherDescription
    plan: Plan
    storage: Storage
    units: list[list[PlannedExample]]


def run_capture(settings: CaptureSettings) -> CaptureOutcome:
    """Capture what the store lacks, then take a snapshot. Running it again is resuming it."""
    work = prepare(settings)
    spec, plan, storage, units = work.description.spec, work.plan, work.storage, work.units
    log = RunLog(settings, planned=len(plan.examples) + len(plan.rejected), truncated=plan.truncated)
    if units:
        with ray_session(settings.address, settings.actors * settings.engine.cpu_threads):
            on_gpu = cluster_has_gpus() and settings.engine.gpus > 0
            count = min(settings.actors, len(units))
            require_gpus(count * settings.engine.gpus)
            if not on_gpu:
                require_cpus(count * settings.engine.cpu_threads)
            print(f"capture: starting {count} engine{'s' if count > 1 else ''}", flush=True)
            started = time.monotonic()
            start = partial(start_worker, settings, work.description, on_gpu)
            workers = [start() for _ in range(count)]
            wait_ready(workers)
            create_store(storage, spec)  # not before the teacher has proved to load
            log.start_seconds = time.monotonic() - started
            _capture_units(start, workers, units, log, len(plan.examples))
    create_store(storage, spec)
    for key, (example_id, reason) in plan.rejected.items():
        quarantine_example(storage, key, example_id, reason)
    snapshot = take_snapshot(storage)
    set_aside = set(quarantined_keys(storage))
    return CaptureOutcome(
        sum(key not in set_aside for key in plan.examples),
        log.examples,
        len(set_aside),
        plan.truncated,
        log.rows,
        log.seconds,
        log.start_seconds,
        snapshot.number,
        log.cost,
    )


def preview(settings: CaptureSettings) -> str:
    """What a run would do, without an engine and without writing anything."""
    work = prepare(settings)
    return (
        f"fingerprint {work.description.spec.fingerprint}\n{len(work.plan.examples):,} examples wanted "
        f"({work.plan.truncated:,} truncated), {len(work.plan.rejected):,} refused, "
        f"{sum(map(len, work.units)):,} missing in {len(work.units):,} units"
    )


def prepare(settings: CaptureSettings) -> Work:
    """Find out what is to be done and raise for what cannot be; writes nothing."""
    bad: list[BadExample] = []
    examples = read_examples(settings.examples, bad.append)[: settings.limit]
    description = describe(settings.teacher, settings.engine, settings.targets, settings.generation, settings.score)
    limits = Limits(settings.teacher.max_tokens, description.spec.vocab_size, settings.teacher.truncation)
    plan = plan_capture(
        examples,
        description.tokenizer,
        limits,
        settings.score,
        settings.targets.of,
        settings.generation,
        description.prompter,
    )
    reject_lines(plan, bad)
    _require_work(plan, settings)
    storage = open_storage(settings.store)
    _require_same(storage, description.spec)
    return Work(description, plan, storage, missing_units(plan, storage, settings.unit_size))


def _require_same(storage: Storage, spec: StoreSpec) -> None:
    """Raise SpecMismatchError where the store exists with other content."""
    if storage.size(SPEC) is not None:
        read_spec(storage).require_same(spec, str(storage))


def _require_work(plan: Plan, settings: CaptureSettings) -> None:
    """Raise InputError where a job asks for nothing at all."""
    if not plan.examples and not plan.rejected:
        asked = "scored responses" if settings.score else "nothing, since score = false"
        raise InputError(
            f"examples file {settings.examples}: no example has a response, and the job asks for {asked}; "
            "add a [generation] table to let the teacher write"
        )


def missing_units(plan: Plan, storage: Storage, unit_size: int) -> list[list[PlannedExample]]:
    """Units of wanted examples that no commit holds and no quarantine tells of, in the order of the plan.

    Responses to one example stay together: which of them are kept depends on the others.
    """
    told = {e.key for unit in committed_units(storage) for e in read_commit(storage, unit)[0].examples}
    told.update(quarantined_keys(storage))
    units: list[list[PlannedExample]] = []
    for item in (item for key, item in plan.examples.items() if key not in told):
        if not units or (len(units[-1]) >= unit_size and not _of_one_example(units[-1][-1], item)):
            units.append([])
        units[-1].append(item)
    return units


def _of_one_example(one: PlannedExample, other: PlannedExample) -> bool:
    return one.tokenized.example.id == other.tokenized.example.id and SCORED_ORIGIN not in (
        one.tokenized.origin,
        other.tokenized.origin,
    )


def _capture_units(
    start: Callable[[], Any], workers: Sequence[Any], units: list[list[PlannedExample]], log: RunLog, total: int
) -> None:
    """Capture the units with a progress bar over all `total` examples of the job."""
    committed = total - sum(map(len, units))
    log.begin()
    dispatcher = Dispatcher(start, workers, units, UNITS_PER_WORKER)
    with bar("capture", total, "examples", initial=committed) as progress:

        def on_done(number: int, summary: UnitSummary) -> None:
            nonlocal committed
            committed += len(units[number])
            log.add(summary)
            progress.set_postfix_str(f"{log.rows / log.seconds:,.0f} tokens/s", refresh=False)
            progress.update(max(0, committed - progress.n))

        def on_poll() -> None:
            answered = committed + examples_in_progress(dispatcher.current_workers())
            progress.update(max(0, min(answered, total) - progress.n))

        dispatcher.run(on_done, on_poll)
