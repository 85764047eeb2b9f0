"""Run a capture job: start the actors, capture the missing units, and take a snapshot."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from cache.errors import LogitbankError
from cache.storage.base import Storage
from cache.store.claims.tokenizer_files import claim_tokenizer
from cache.store.commits import create_store
from cache.store.logit_store import LogitStore
from cache.store.quarantine.entries import quarantine_example, quarantined_keys, update_marks
from cache.store.segments.columns import hex_rows
from cache.store.snapshots import take_snapshot
from cluster.capture.actor import UNITS_PER_WORKER, start_worker
from cluster.capture.dispatch import Dispatcher, examples_in_progress, wait_ready
from cluster.capture.input_summary import InputSummary
from cluster.capture.planning import CapturePlan, plan_job
from cluster.capture.run_log import RunLog
from cluster.capture.settings import CaptureSettings
from cluster.runtime.progress_bars import bar
from cluster.runtime.ray_session import cluster_has_gpus, is_embedded, ray_session, require_cpus, require_gpus
from teacher_serving.asking.plan import Plan, PlannedExample
from teacher_serving.capture.unit import UnitSummary
from teacher_serving.engines.process import available_threads


@dataclass(frozen=True, slots=True)
class CaptureOutcome:
    """What one run of a job did.

    examples: examples of the job that are in the store now. captured, rows: examples and tokens of this run.
    refused: examples of the job in the store's quarantine; reasons: their number by reason, the most frequent first.
    truncated: examples of the job that lost tokens. without_rows: examples of this run without log-probabilities,
    because the service returned none for them.
    seconds: from the first unit to the last commit, without start_seconds, the start of the engines.
    snapshot: number of the new snapshot. cost: price of this run's units, if a service was used. rows_from: the ways in
    which rows were made that are not the usual one. input: what became of the lines of the examples file. others:
    records of the store that do not belong to this job. forgotten: responses of the job that the store must not keep.
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
    rows_from: tuple[str, ...] = ()
    reasons: dict[str, int] = field(default_factory=dict)
    without_rows: int = 0
    input: InputSummary | None = None
    others: int = 0
    forgotten: int = 0


def run_capture(settings: CaptureSettings) -> CaptureOutcome:
    """Capture the examples that the store lacks, then take a snapshot. A second run resumes the first."""
    job = plan_job(settings)
    plan, storage = job.plan, job.storage
    log = RunLog(settings, planned=len(plan.examples) + len(plan.rejected), truncated=plan.truncated, lines=job.input)
    if job.units:
        _capture_missing(settings, job, log)
    else:
        _begin_store(job)
        log.update_input()
    if log.stopped:
        raise LogitbankError(_explain_stop(plan, storage, log))
    snapshot = take_snapshot(storage)
    return replace(
        _summarize(plan, storage, log, snapshot.number), input=job.input, others=job.others, forgotten=job.forgotten
    )


def _begin_store(job: CapturePlan) -> None:
    """Create the store with its tokenizer, put rejected examples into quarantine, and mark entries of other plans."""
    create_store(job.storage, job.description.spec)
    if job.tokenizer:
        claim_tokenizer(job.storage, job.description.spec, job.tokenizer)
    for key, (example_id, reason) in job.plan.rejected.items():
        quarantine_example(job.storage, key, example_id, reason)
    if quarantined_keys(job.storage):
        # Entries from earlier runs may be about lines that are different now.
        stored = _keys(LogitStore.open(str(job.storage), unpinned=True))
        update_marks(job.storage, job.plan.examples.keys() | job.plan.rejected.keys(), stored)


def _keys(store: LogitStore) -> set[str]:
    return set(hex_rows(store.index.key))


def _explain_stop(plan: Plan, storage: Storage, log: RunLog) -> str:
    """The error of a job that ends because its teacher answers no more."""
    stored = len(_keys(LogitStore.open(str(storage), unpinned=True)).intersection(plan.examples))
    kept = f"{stored:,} of {len(plan.examples):,} examples are captured and are not asked for again"
    return f"{log.stopped} ({kept})"


def _summarize(plan: Plan, storage: Storage, log: RunLog, snapshot: int) -> CaptureOutcome:
    store = LogitStore.open(str(storage), snapshot)
    info = store.info()
    return CaptureOutcome(
        len(_keys(store).intersection(plan.examples)),
        log.examples,
        info.quarantined,
        plan.truncated,
        log.rows,
        log.seconds,
        log.start_seconds,
        snapshot,
        log.cost,
        tuple(log.rows_from),
        info.quarantine,
        log.without_rows,
    )


def _capture_missing(settings: CaptureSettings, job: CapturePlan, log: RunLog) -> None:
    """Start the actors in Ray and let them capture the missing units."""
    count = min(settings.actors, len(job.units))
    threads = max(1, available_threads() // count) if is_embedded(settings.address) else 1
    engine = settings.engine.with_threads(threads)
    settings = settings.model_copy(update={"engine": engine})
    with ray_session(settings.address, settings.actors * engine.threads):
        on_gpu = cluster_has_gpus() and engine.gpus > 0
        require_gpus(count * engine.gpus)
        if not on_gpu:
            require_cpus(count * engine.threads)
        print(f"capture: starting {count} engine{'s' if count > 1 else ''}", flush=True)
        started = time.monotonic()
        start = partial(start_worker, settings, job.description, on_gpu)
        workers = [start() for _ in range(count)]
        wait_ready(workers)
        _begin_store(job)  # only now: no store is left behind if the teacher cannot start
        log.start_seconds = time.monotonic() - started
        _capture_units(start, workers, job.units, log, len(job.plan.examples))


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
            log.add(summary)
            if summary.stopped:
                dispatcher.stop()
                committed += summary.examples + summary.refused
            else:
                committed += len(units[number])
            progress.set_postfix_str(f"{log.rows / log.seconds:,.0f} tokens/s", refresh=False)
            progress.update(max(0, committed - progress.n))

        def on_poll() -> None:
            answered = committed + examples_in_progress(dispatcher.current_workers())
            progress.update(max(0, min(answered, total) - progress.n))

        dispatcher.run(on_done, on_poll)
