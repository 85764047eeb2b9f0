"""Dispatcher: gives units to actors until all are captured, and recovers from actors, nodes and units that fail."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import ray
from ray.exceptions import ActorDiedError, RayActorError, RayError, RayTaskError

from cache.errors import LogitbankError, StoreError
from cluster.capture.input.work import Work
from cluster.runtime.ray_session import own_error

# A unit that has lost its worker this many times is divided. So is each half after one more death.
MAX_DEATHS = 3
# The job ends if so many workers are lost that Ray cannot restart, or if so many single examples kill their worker,
# without a unit that is captured between them: then it is not the fault of a node or of the examples.
MAX_LOST = 3
# A dead actor rejects every call until its engine has started again.
RETRY_SECONDS = 2.0
POLL_SECONDS = 1.0


class Source(Protocol):
    """Where units come from."""

    def take(self) -> Work | None:
        """The next unit; None if none is ready."""
        ...

    @property
    def is_exhausted(self) -> bool:
        """Whether none comes any more."""
        ...


class Events(Protocol):
    """What a dispatcher tells."""

    def done(self, work: Work, result: Any) -> None:
        """A unit is captured. result: of its worker."""
        ...

    def joined(self, workers: int) -> None:
        """A worker that was waiting for room in the cluster has begun; now so many work."""
        ...

    def died(self, work: Work) -> None:
        """A unit has lost its worker and will be tried again; `work.deaths` counts it."""
        ...

    def divided(self, work: Work) -> None:
        """A unit is divided, after too many deaths."""
        ...

    def guilty(self, work: Work, reason: str) -> None:
        """A unit of one example is given up."""
        ...

    def polled(self) -> None:
        """About a second has passed."""
        ...


@dataclass(frozen=True, slots=True)
class Call:
    """A running call of a worker. work: None for a call that waits for a restart."""

    worker: Any
    work: Work | None


class Dispatcher:
    """Lets workers capture every unit of a source once, with up to `units_per_worker` units in each at a time.

    start_worker: starts a replacement for a worker that cannot be restarted. joining: further workers, which are not
    ready yet, by the reference to their call of `ready`.
    """

    def __init__(
        self,
        start_worker: Callable[[], Any],
        workers: Sequence[Any],
        source: Source,
        events: Events,
        units_per_worker: int = 1,
        joining: Mapping[Any, Any] | None = None,
    ) -> None:
        self._start_worker = start_worker
        self._source, self._events = source, events
        # Units that were given back, before those of the source.
        self._returned: deque[Work] = deque()
        self._per_worker = units_per_worker
        self._idle = deque(list(workers) * units_per_worker)
        self._workers = list(workers)
        self._joining = set((joining or {}).values())
        self._calls: dict[Any, Call] = {ready: Call(worker, None) for ready, worker in (joining or {}).items()}
        self._restarting: list[tuple[float, Any]] = []
        # Workers that died and are not ready yet. A call to one fails at once, which is not the fault of its unit.
        self._unavailable: set[Any] = set()
        self._lost_workers = self._guilty = 0
        self._is_stopped = False
        # Several calls can report the death of one worker: it is replaced once.
        self._replacements: dict[Any, Any] = {}

    def run(self) -> None:
        """Capture all units. A unit whose worker died is the next to be captured; it runs alone in its worker.

        Raises the error of a worker if it is the project's own, and StoreError if workers keep dying.
        """
        while not self._is_finished():
            self._submit()
            if self._calls:
                for reference in ray.wait(list(self._calls), num_returns=1, timeout=POLL_SECONDS)[0]:
                    self._collect(reference)
            else:
                time.sleep(0.05)
            self._events.polled()

    def stop(self) -> None:
        """Submit no further unit. `run` returns when the units in progress are finished."""
        self._is_stopped = True
        self._returned.clear()

    def available_workers(self) -> list[Any]:
        """The workers that are ready."""
        return [worker for worker in self._workers if worker not in self._unavailable]

    @property
    def load(self) -> dict[str, float]:
        """Engines that are ready, units that they have in hand, and the share of their places without one."""
        engines = len(self.available_workers())
        busy = sum(call.work is not None for call in self._calls.values())
        places = engines * self._per_worker
        return {"engines": engines, "in_flight": busy, "idle_share": max(0.0, 1 - busy / places) if places else 1.0}

    def _is_finished(self) -> bool:
        if any(call.work is not None for call in self._calls.values()) or self._returned:
            return False
        return self._is_stopped or self._source.is_exhausted

    def _submit(self) -> None:
        """Submit units to idle workers, and check whether restarting workers are ready."""
        now = time.monotonic()
        for _, worker in [item for item in self._restarting if item[0] <= now]:
            self._calls[worker.ready.remote()] = Call(worker, None)
        self._restarting = [item for item in self._restarting if item[0] > now]
        for _ in range(len(self._idle)):
            worker = self._idle.popleft()
            worker = self._replacements.get(worker, worker)
            work = None if worker in self._unavailable else self._take(worker)
            if work is None:
                self._idle.append(worker)
                continue
            self._calls[work.call(worker)] = Call(worker, work)

    def _take(self, worker: Any) -> Work | None:
        """Take the next unit that this worker can have now, or None.

        A unit that was running when a worker died runs alone from then on, so that no other one is blamed for it.
        """
        running = [call.work for call in self._calls.values() if call.worker == worker and call.work is not None]
        if any(work.deaths for work in running):
            return None
        for work in self._returned:
            if not running or not work.deaths:
                self._returned.remove(work)
                return work
        while not self._is_stopped and (fresh := self._source.take()) is not None:
            if not running or not fresh.deaths:
                return fresh
            self._returned.append(fresh)
        return None

    def _collect(self, reference: Any) -> None:
        """Take the result of a finished call."""
        call = self._calls.pop(reference)
        try:
            result = ray.get(reference)
        except RayActorError as error:
            if call.work is not None:
                self._give_back(call.work, f"its worker died: {_first_line(error)}")
            self._restore(call.worker, error)
        except RayTaskError as error:
            if call.work is None or isinstance(own_error(error), LogitbankError):
                raise own_error(error) from error
            self._give_back(call.work, f"its worker failed: {_first_line(own_error(error))}")
            self._idle.append(call.worker)
        else:
            if call.worker in self._joining:
                self._join(call.worker)
                return
            self._idle.append(call.worker)
            if call.work is None:
                self._unavailable.discard(call.worker)
            else:
                self._guilty = self._lost_workers = 0
                self._events.done(call.work, result)

    def _join(self, worker: Any) -> None:
        """A worker that waited for room in the cluster is ready."""
        self._joining.discard(worker)
        self._workers.append(worker)
        self._unavailable.discard(worker)
        self._idle.extend([worker] * self._per_worker)
        self._events.joined(len(self.available_workers()))

    def _give_back(self, work: Work, reason: str) -> None:
        """Try a unit again, divide it, or give up its only example."""
        work = work.died()
        if work.deaths < MAX_DEATHS:
            self._events.died(work)
            if not self._is_stopped:
                self._returned.appendleft(work)
        elif halves := work.halves():
            self._events.divided(work)
            if not self._is_stopped:
                self._returned.extendleft(reversed(halves))
        else:
            self._guilty += 1
            if self._guilty >= MAX_LOST:
                raise StoreError(f"{self._guilty} examples in a row lost their worker, the last one: {reason}")
            self._events.guilty(work, reason)

    def _restore(self, worker: Any, error: RayActorError) -> None:
        """Wait for a worker's restart, or replace it."""
        if isinstance(error, ActorDiedError):
            if worker not in self._replacements:
                self._lost_workers += 1
                if self._lost_workers >= MAX_LOST:
                    raise StoreError(f"{self._lost_workers} workers died beyond restart: {error}") from error
                replacement = self._replacements[worker] = self._start_worker()
                self._workers = [replacement if each == worker else each for each in self._workers]
                if worker in self._joining:
                    self._joining ^= {worker, replacement}
            worker = self._replacements[worker]
        self._unavailable.add(worker)
        self._restarting.append((time.monotonic() + RETRY_SECONDS, worker))


def wait_ready(workers: Sequence[Any], count: int) -> tuple[list[Any], dict[Any, Any]]:
    """Return when `count` workers are ready: these, and the others by the reference to their call of `ready`.

    Raises the error of a worker that cannot start.
    """
    calls = {worker.ready.remote(): worker for worker in workers}
    ready, _ = ray.wait(list(calls), num_returns=count)
    try:
        ray.get(ready)
    except (RayActorError, RayTaskError) as error:
        raise own_error(error) from error
    return [calls.pop(reference) for reference in ready], calls


def examples_in_progress(workers: Iterable[Any]) -> int:
    """Count the examples that workers have answered but not yet committed. A worker that does not answer counts 0."""
    references = [worker.examples_in_progress.remote() for worker in workers]
    ready, _ = ray.wait(references, num_returns=len(references), timeout=0.5)
    total = 0
    for reference in ready:
        try:
            total += ray.get(reference)
        except RayError:  # the worker is dead or restarting
            continue
    return total


def _first_line(error: Exception) -> str:
    """What an error says, without the text that Ray adds."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    name = type(cause).__name__
    return ": ".join([*([name] if isinstance(error, RayTaskError) else []), *lines[:1]]) or name
