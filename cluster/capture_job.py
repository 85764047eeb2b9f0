"""The capture driver: what is missing, who captures it, what it came to."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cache.commits import (
    SPEC,
    committed_units,
    create_store,
    quarantine,
    read_commit,
    read_spec,
)
from cache.documents import write_json
from cache.errors import InputError
from cache.example import TokenizedExample
from cache.examples_file import read_examples
from cache.rendering import Tokenizer
from cache.snapshots import take_snapshot
from cache.spec import StoreSpec
from cache.storage import Storage, open_storage
from cluster.actors import start_worker
from cluster.config import CaptureSettings
from cluster.dispatch import dispatch, wait_ready
from cluster.outputs import hardware, read_json
from cluster.progress import bar
from cluster.ray_session import cluster_has_gpus, ray_session, require_gpus
from teacher_serving.capture import Plan, UnitSummary, plan_capture
from teacher_serving.identity import describe


@dataclass(frozen=True, slots=True)
class CaptureOutcome:
    """What one run of the job did. seconds: from the first unit given out to the last committed, engines started."""

    examples: int
    captured: int
    refused: int
    rows: int
    seconds: float
    start_seconds: float
    snapshot: int


@dataclass(frozen=True, slots=True)
class Work:
    """A job against the store as it is: who is asked, for what, and the units that are missing."""

    spec: StoreSpec
    folder: Path
    tokenizer: Tokenizer
    plan: Plan
    storage: Storage
    units: list[list[TokenizedExample]]


def run_capture(settings: CaptureSettings) -> CaptureOutcome:
    """Capture what the store lacks, then take a snapshot. Running it again is resuming it."""
    work = prepare(settings)
    spec, plan, storage, units = work.spec, work.plan, work.storage, work.units
    log = RunLog(settings)
    if units:
        with ray_session(settings.address, settings.actors * settings.engine.cpu_threads):
            on_gpu = cluster_has_gpus()
            count = min(settings.actors, len(units))
            require_gpus(count * settings.engine.tensor_parallel)
            print(f"capture: starting {count} engine{'s' if count > 1 else ''}", flush=True)
            started = time.monotonic()
            start = partial(start_worker, settings, str(work.folder), spec, work.tokenizer, on_gpu)
            workers = [start() for _ in range(count)]
            wait_ready(workers)
            create_store(storage, spec)  # not before the teacher has proved to load
            log.start_seconds = time.monotonic() - started
            _capture_units(start, workers, units, log, len(plan.wanted))
    create_store(storage, spec)
    for key, (example_id, reason) in plan.refused.items():
        quarantine(storage, key, example_id, reason)
    snapshot = take_snapshot(storage)
    return CaptureOutcome(
        len(plan.wanted), log.examples, len(plan.refused), log.rows, log.seconds, log.start_seconds, snapshot.number
    )


def preview(settings: CaptureSettings) -> str:
    """What a run would do, without an engine and without writing anything."""
    work = prepare(settings)
    return (
        f"fingerprint {work.spec.fingerprint}\n{len(work.plan.wanted):,} examples wanted, "
        f"{len(work.plan.refused):,} refused, {sum(map(len, work.units)):,} missing in {len(work.units):,} units"
    )


def prepare(settings: CaptureSettings) -> Work:
    """Find out what is to be done and raise for what cannot be; writes nothing."""
    examples = read_examples(settings.examples)[: settings.limit]
    spec, folder, tokenizer = describe(settings.teacher, settings.targets, settings.generation)
    plan = plan_capture(examples, tokenizer, settings.score, settings.generation, settings.teacher.max_tokens)
    _require_work(plan, settings)
    storage = open_storage(settings.store)
    _require_same(storage, spec)
    return Work(spec, folder, tokenizer, plan, storage, missing_units(plan, storage, settings.unit_size))


def _require_same(storage: Storage, spec: StoreSpec) -> None:
    """Raise SpecMismatchError where the store exists with other content."""
    if storage.size(SPEC) is not None:
        read_spec(storage).require_same(spec, str(storage))


def _require_work(plan: Plan, settings: CaptureSettings) -> None:
    """Raise InputError where a job asks for nothing at all."""
    if not plan.wanted and not plan.refused:
        asked = "scored responses" if settings.score else "nothing, since score = false"
        raise InputError(
            f"examples file {settings.examples}: no example has a response, and the job asks for {asked}; "
            "add a [generation] table to let the teacher write"
        )


def missing_units(plan: Plan, storage: Storage, unit_size: int) -> list[list[TokenizedExample]]:
    """Units of wanted examples that no commit holds, in the order of the plan."""
    held = {e.key for unit in committed_units(storage) for e in read_commit(storage, unit)[0].examples}
    missing = [item for key, item in plan.wanted.items() if key not in held]
    return [missing[start : start + unit_size] for start in range(0, len(missing), unit_size)]


class RunLog:
    """Rows and seconds of this run, kept in a file beside the store with those of earlier runs that were cut off."""

    def __init__(self, settings: CaptureSettings) -> None:
        self._path = capture_log(settings.store)
        self._job = settings.model_dump(mode="json")
        self._hardware = hardware()
        self._earlier: list[dict[str, Any]] = read_json(self._path)["runs"] if self._path.exists() else []
        self._started = 0.0
        self.examples = self.rows = 0
        self.seconds = self.start_seconds = 0.0

    def begin(self) -> None:
        self._started = time.monotonic()

    def add(self, summary: UnitSummary) -> None:
        self.seconds = time.monotonic() - self._started
        if summary.won:
            self.examples += summary.examples
            self.rows += summary.rows
        run = {name: getattr(self, name) for name in ("examples", "rows", "seconds", "start_seconds")}
        write_json(self._path, {"job": self._job, "hardware": self._hardware, "runs": [*self._earlier, run]})


def capture_log(store: str) -> Path:
    """Where the runs that filled a store are told: beside a folder; for an object store in the working folder."""
    path = Path(store.partition("://")[2].replace("/", "-") if "://" in store else store)
    return path.with_name(f"{path.name}.capture.json")


def _capture_units(
    start: Callable[[], Any], workers: Sequence[Any], units: list[list[TokenizedExample]], log: RunLog, wanted: int
) -> None:
    total = sum(map(len, units))
    log.begin()
    with bar("capture", wanted, "examples", initial=wanted - total) as shown:

        def done(number: int, summary: UnitSummary) -> None:
            log.add(summary)
            shown.set_postfix_str(f"{log.rows / log.seconds:,.0f} tokens/s", refresh=False)
            shown.update(len(units[number]))

        dispatch(start, workers, units, done)
