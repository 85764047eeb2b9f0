"""CaptureRun: one run of a capture job, from its first unit to the snapshot."""

import sys
import time
from dataclasses import dataclass, field
from functools import partial
from itertools import compress
from typing import Any

import numpy as np
import numpy.typing as npt
import ray

from cache.errors import LogitbankError
from cache.examples.files.windows import input_bytes
from cache.store.claims.tokenizer_files import claim_tokenizer
from cache.store.commits import create_store
from cache.store.logit_store import LogitStore
from cache.store.quarantine.entries import quarantine_example, quarantined_keys, update_marks
from cache.store.segments.keys import Array, is_among, keys_of_hex, sorting_order
from cache.store.snapshot_reading import are_committed
from cache.store.snapshots import take_snapshot
from cluster.capture.actor import start_worker, units_per_worker
from cluster.capture.dispatch import POLL_SECONDS, Dispatcher, examples_in_progress, wait_ready
from cluster.capture.event_log import EventLog, LoggedEvents
from cluster.capture.input.input_summary import InputSummary
from cluster.capture.input.job import CaptureJob
from cluster.capture.input.tries import Tries
from cluster.capture.input.unit_stream import Planner, UnitStream
from cluster.capture.input.window_planning import PlannedWindow
from cluster.capture.input.work import Work
from cluster.capture.periodic_snapshots import PeriodicSnapshots
from cluster.capture.run_log import RunLog
from cluster.capture.settings import CaptureSettings
from cluster.capture.sharing.drivers import Presence, drivers_of, remove_gone
from cluster.capture.sharing.leases import Leases
from cluster.capture.sharing.shared_work import SharedWork
from cluster.runtime.interruption import Interruption
from cluster.runtime.metrics import Metrics
from cluster.runtime.progress_bars import bar, counter
from cluster.runtime.ray_session import cluster_has_gpus, is_embedded, require_cpus, require_gpus
from teacher_serving.capture.unit import UnitSummary
from teacher_serving.engines.process import available_threads
from teacher_serving.engines.settings import EngineSettings


@dataclass(frozen=True, slots=True)
class CaptureOutcome:
    """What one run of a job did.

    examples: examples of the job that are in the store now. captured, rows: examples and tokens of this run.
    refused: examples of the job in the store's quarantine; reasons: their number by reason, the most frequent first.
    truncated: examples of the job that lost tokens. without_rows: examples of this run without log-probabilities,
    because the service returned none for them.
    seconds: from the first unit to the last commit, without start_seconds, the start of the engines, and
    planning_seconds, until the first unit is planned, or all is if nothing is missing.
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
    planning_seconds: float = 0.0


def engine_settings(settings: CaptureSettings, actors: int) -> EngineSettings:
    """The settings of each engine, with its share of the cores of this machine."""
    threads = max(1, available_threads() // actors) if is_embedded(settings.address) else 1
    return settings.engine.with_threads(threads)


class CaptureRun:
    """One run of a capture job: from its first unit to the snapshot. Also hears what the dispatcher tells.

    log: gets a line for each of these events.
    """

    def __init__(self, job: CaptureJob, log: EventLog | None = None) -> None:
        self._job, self._storage, self._event_log = job, job.storage, log
        self._log = RunLog(job.settings)
        self._tries = Tries(job.storage)
        self._has_begun = False
        self._rejected: dict[str, tuple[str, str]] = {}
        self._bytes = input_bytes(job.settings.examples)
        self._presence = Presence(self._storage, self._facts)
        self._leases = Leases(self._storage, self._presence.name)
        self._snapshots = PeriodicSnapshots(self._storage)
        self._metrics = Metrics("capture", str(job.storage))
        self._answered = self._deaths = 0
        self._polled = 0.0
        self._is_stopping = self._has_told = False

    def plan(self, planner: Planner) -> None:
        """Plan until a unit is found that the store lacks, or to the end."""
        self._stream = UnitStream(self._job, planner, self._add_window, self._tries)
        self.work = SharedWork(self._stream, self._leases, self._find_known)
        started = time.monotonic()
        show = counter("reading", "B")
        while (work := self._stream.take()) is None and not self._stream.is_exhausted:
            time.sleep(0.02)
            show(self._stream.input.bytes_read, self._bytes)
        self._planning_seconds = time.monotonic() - started
        if work is not None:
            self._stream.put_back(work)

    @property
    def known_units(self) -> int:
        """Number of units that are planned."""
        return self._stream.ready

    def capture(self) -> None:
        """Start the actors in the Ray of this process and let them capture what is missing."""
        settings = self._job.settings
        most = min(settings.most_actors, self.known_units) if self._is_read else settings.most_actors
        fewest = min(settings.fewest_actors, most)
        settings = settings.model_copy(update={"engine": engine_settings(settings, most)})
        on_gpu = cluster_has_gpus() and settings.engine.gpus > 0
        require_gpus(fewest * settings.engine.gpus)
        if not on_gpu:
            require_cpus(fewest * settings.engine.threads)
        number = f"{most}" if fewest == most else f"{fewest} to {most}"
        print(f"capture: starting {number} engine{'s' if most > 1 else ''}", flush=True)
        started = time.monotonic()
        start = partial(start_worker, settings, self._job.description, on_gpu)
        workers, joining = wait_ready([start() for _ in range(most)], fewest)
        self._begin_store()  # only now: no store is left behind if the teacher cannot start
        self._presence.beat()
        self._log.start_seconds = time.monotonic() - started
        self._log.begin()
        events = self if self._event_log is None else LoggedEvents(self, self._event_log)
        self._dispatcher = Dispatcher(start, workers, self.work, events, units_per_worker(on_gpu), joining)
        try:
            with (
                Interruption() as self._interruption,
                bar("capture", self._planned, "examples", initial=self._done) as self._bar,
            ):
                self._dispatcher.run()
                self._interruption.raise_if_noted()
        finally:
            self._show_metrics()
            self._leases.release_all()
            self._presence.end()
            self._snapshots.end()

    def done(self, work: Work, result: UnitSummary) -> None:
        """See Events."""
        self._describe_input()
        self._log.add(result)
        self.work.finished(work)
        if work.deaths:
            self._tries.clear(work)
        if result.stopped:
            self._dispatcher.stop()
            self._answered += result.examples + result.refused
        else:
            self._answered += len(work)
        self._bar.set_postfix_str(f"{self._log.rows / self._log.seconds:,.0f} tokens/s", refresh=False)
        self._show(self._done)

    def joined(self, workers: int) -> None:
        """See Events."""
        print(f"capture: another engine has joined; {workers} work now", file=sys.stderr, flush=True)

    def died(self, work: Work) -> None:
        """See Events."""
        self._deaths += 1
        self._tries.note(work)

    def divided(self, work: Work) -> None:
        """See Events."""
        self._tries.clear(work)
        print(f"capture: {work.name} lost its worker {work.deaths} times and is divided", file=sys.stderr, flush=True)

    def guilty(self, work: Work, reason: str) -> None:
        """See Events."""
        units = ray.get(work.units) if isinstance(work.units, ray.ObjectRef) else work.units
        for place in work.places:
            item = units[work.number][place]
            quarantine_example(self._storage, item.key, item.tokenized.example.id, f"lost its worker: {reason}")
        self._tries.clear(work)
        self.work.finished(work)
        self._answered += len(work)

    def polled(self) -> None:
        """See Events."""
        if self._interruption.number is not None and not self._is_stopping:
            self._is_stopping = True
            self._dispatcher.stop()
            print("capture: finishing the units in hand; a second signal stops at once", file=sys.stderr, flush=True)
        if time.monotonic() - self._polled < POLL_SECONDS:
            return
        self._polled = time.monotonic()
        self._presence.beat()
        self._snapshots.poll()
        self._tell_of_others()
        self._bar.total = self._planned
        self._show_metrics()
        answered = self._done + examples_in_progress(self._dispatcher.available_workers())
        self._show(min(answered, self._planned))

    def finish(self) -> CaptureOutcome:
        """Take the snapshot of what is captured. Raises LogitbankError if the teacher has stopped to answer."""
        known = self._stream.input
        self._describe_input()
        if not self._has_begun:
            self._begin_store()
            self._log.update_input()
        if self._log.stopped:
            raise LogitbankError(f"{self._log.stopped} ({self._kept()})")
        self._mark_obsolete()
        snapshot = take_snapshot(self._storage)
        store = LogitStore.open(str(self._storage), snapshot.number)
        info = store.info()
        return CaptureOutcome(
            self._count_in(store),
            self._log.examples,
            info.quarantined,
            known.truncated,
            self._log.rows,
            self._log.seconds,
            self._log.start_seconds,
            snapshot.number,
            self._log.cost,
            tuple(self._log.rows_from),
            info.quarantine,
            self._log.without_rows,
            known.summary,
            known.others,
            known.forgotten,
            self._planning_seconds,
        )

    @property
    def _planned(self) -> int:
        """Examples of the whole job; an estimate until it is read."""
        return self._stream.input.expected(None if self._is_read else self._bytes)

    @property
    def _is_read(self) -> bool:
        """Whether all windows are planned."""
        return self._stream.is_complete or self._stream.input.bytes_read >= self._bytes

    @property
    def _done(self) -> int:
        """Responses of the job that are in the store or in quarantine."""
        known = self._stream.input
        return known.planned - known.missing + self._answered + self.work.elsewhere

    def _tell_of_others(self) -> None:
        """Say once that other drivers work on the store, and that this one waits for them."""
        if self.work.others and not self._has_told and self._stream.is_exhausted:
            names = ", ".join(
                f"{other.host}, process {other.pid}"
                for other in drivers_of(self._storage)
                if other.name != self._presence.name
            )
            count = self.work.others
            print(f"capture: another driver ({names}) captures {count:,} examples", file=sys.stderr, flush=True)
            self._has_told = True

    def _facts(self) -> dict[str, Any]:
        """What the store says about this driver."""
        log = self._log
        facts = {"planned": self._planned, "answered": self._done, "captured": log.examples, "refused": log.refused}
        return facts | {"rows": log.rows, "seconds": round(log.elapsed, 1), "cost": log.cost}

    def _show_metrics(self) -> None:
        more = {"bytes": self._log.bytes, "deaths": self._deaths, "queue": self._stream.ready}
        self._metrics.show(self._facts() | more | self._dispatcher.load)

    def _find_known(self, keys: Array) -> npt.NDArray[np.bool_]:
        """Which responses are in the store by now, or in its quarantine."""
        committed = are_committed(self._storage, self._job.description.spec.fingerprint, keys)
        refused = keys_of_hex(quarantined_keys(self._storage))
        return committed | is_among(keys, refused[sorting_order(refused)])

    def _show(self, done: int) -> None:
        self._bar.update(max(0, done - self._bar.n))

    def _describe_input(self) -> None:
        self._log.set_input(self._stream.input, self._planned, self._is_read)

    def _add_window(self, window: PlannedWindow) -> None:
        """Take a planned window: its rejected examples go into quarantine as soon as there is a store."""
        self._rejected |= window.rejected
        if self._has_begun:
            self._quarantine_rejected()

    def _begin_store(self) -> None:
        """Create the store with its tokenizer, and put rejected examples into quarantine."""
        create_store(self._storage, self._job.description.spec)
        if self._job.tokenizer:
            claim_tokenizer(self._storage, self._job.description.spec, self._job.tokenizer)
        self._has_begun = True
        remove_gone(self._storage)
        self._quarantine_rejected()

    def _quarantine_rejected(self) -> None:
        for key, (example_id, reason) in self._rejected.items():
            quarantine_example(self._storage, key, example_id, reason)
        self._rejected.clear()

    def _mark_obsolete(self) -> None:
        """Mark entries of the quarantine from earlier runs that are about lines which are different now."""
        entries = quarantined_keys(self._storage)
        if not entries:
            return
        keys, known = keys_of_hex(entries), self._stream.input
        planned = known.keys.contains(keys) | known.rejected_keys.contains(keys)
        captured = LogitStore.open(str(self._storage), unpinned=True).index.contains(keys)
        update_marks(self._storage, set(compress(entries, planned)), set(compress(entries, captured)))

    def _kept(self) -> str:
        """What the store has of a job whose teacher answers no more."""
        count = self._count_in(LogitStore.open(str(self._storage), unpinned=True))
        about = "" if self._is_read else "about "
        return f"{count:,} of {about}{self._planned:,} examples are captured and are not asked for again"

    def _count_in(self, store: LogitStore) -> int:
        """How many responses of the job a store has."""
        return sum(self._stream.input.keys.count_in(keys.sorted) for keys in store.index.keys)
