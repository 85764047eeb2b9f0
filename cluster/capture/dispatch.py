"""Dispatcher: distributes units to actors until all are captured, and recovers from actors and nodes that die."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayActorError, RayError, RayTaskError

from cache.errors import LogitbankError, StoreError

# The job ends if one unit loses its worker this many times, or if this many workers die and cannot be restarted.
MAX_DEATHS = 3
# A dead actor rejects every call until its engine has started again.
RETRY_SECONDS = 2.0
POLL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Call:
    """A running call of a worker. unit: number of the unit; None for a call that waits for a restart."""

    worker: Any
    unit: int | None


class Dispatcher:
    """Calls worker.capture(unit) once for every unit, with up to `units_per_worker` calls to each worker at a time.

    start_worker: starts a replacement for a worker that cannot be restarted.
    """

    def __init__(
        self, start_worker: Callable[[], Any], workers: Sequence[Any], units: Sequence[Any], units_per_worker: int = 1
    ) -> None:
        self._start_worker = start_worker
        self._units = units
        self._queue = deque(range(len(units)))
        self._idle = deque(list(workers) * units_per_worker)
        self._workers = list(workers)
        self._calls: dict[Any, Call] = {}
        self._restarting: list[tuple[float, Any]] = []
        # Workers that died and are not ready yet. A call to one fails at once, which is not the fault of its unit.
        self._unavailable: set[Any] = set()
        self._deaths_by_unit = [0] * len(units)
        self._lost_workers = 0
        self._is_stopped = False
        # Several calls can report the death of one worker: it is replaced once.
        self._replacements: dict[Any, Any] = {}

    def run(self, on_done: Callable[[int, Any], None], on_poll: Callable[[], None] = lambda: None) -> None:
        """Capture all units. The unit of a dead worker is the next one to be captured by another worker.

        on_done: called with (number of the unit, result) after each unit. on_poll: called about once a second.
        Raises the error of a worker, and StoreError if workers keep dying.
        """
        while self._queue or any(call.unit is not None for call in self._calls.values()):
            self._submit()
            if not self._calls:
                time.sleep(0.2)
                continue
            for reference in ray.wait(list(self._calls), num_returns=1, timeout=POLL_SECONDS)[0]:
                self._collect(reference, on_done)
            on_poll()

    def stop(self) -> None:
        """Submit no further unit. `run` returns when the units in progress are finished."""
        self._is_stopped = True
        self._queue.clear()

    def current_workers(self) -> list[Any]:
        """All workers, with replacements in place of those that were lost."""
        return [self._replacements.get(worker, worker) for worker in self._workers]

    def _submit(self) -> None:
        """Submit units to idle workers, and check whether restarting workers are ready."""
        now = time.monotonic()
        for _, worker in [item for item in self._restarting if item[0] <= now]:
            self._calls[worker.ready.remote()] = Call(worker, None)
        self._restarting = [item for item in self._restarting if item[0] > now]
        for _ in range(len(self._idle)):
            worker = self._idle.popleft()
            worker = self._replacements.get(worker, worker)
            unit = None if worker in self._unavailable else self._take_unit(worker)
            if unit is None:
                self._idle.append(worker)
                continue
            self._calls[worker.capture.remote(self._units[unit])] = Call(worker, unit)

    def _take_unit(self, worker: Any) -> int | None:
        """Take the next unit that this worker can have now, or None.

        A unit that was running when a worker died runs alone from then on, so that no other one is blamed for it.
        """
        running = [call.unit for call in self._calls.values() if call.worker == worker and call.unit is not None]
        if any(self._deaths_by_unit[unit] for unit in running):
            return None
        unit = next((unit for unit in self._queue if not running or not self._deaths_by_unit[unit]), None)
        if unit is not None:
            self._queue.remove(unit)
        return unit

    def _collect(self, reference: Any, on_done: Callable[[int, Any], None]) -> None:
        """Take the result of a finished call."""
        call = self._calls.pop(reference)
        try:
            result = ray.get(reference)
        except RayTaskError as error:
            raise unwrap(error) from error
        except RayActorError as error:
            self._recover(call, error)
        else:
            self._idle.append(call.worker)
            if call.unit is None:
                self._unavailable.discard(call.worker)
            else:
                on_done(call.unit, result)

    def _recover(self, call: Call, error: RayActorError) -> None:
        """Put the unit of a dead worker back into the queue, and wait for the worker's restart or replace it."""
        if call.unit is not None:
            self._deaths_by_unit[call.unit] += 1
            if self._deaths_by_unit[call.unit] >= MAX_DEATHS:
                raise StoreError(
                    f"unit {call.unit + 1} of {len(self._units)} lost its worker {MAX_DEATHS} times: {error}"
                ) from error
            if not self._is_stopped:
                self._queue.appendleft(call.unit)
        worker = call.worker
        if isinstance(error, ActorDiedError):
            if worker not in self._replacements:
                self._lost_workers += 1
                if self._lost_workers >= MAX_DEATHS:
                    raise StoreError(f"{self._lost_workers} workers died beyond restart: {error}") from error
                self._replacements[worker] = self._start_worker()
            worker = self._replacements[worker]
        self._unavailable.add(worker)
        self._restarting.append((time.monotonic() + RETRY_SECONDS, worker))


def wait_ready(workers: Sequence[Any]) -> None:
    """Return when every worker is ready. Raises the error of a worker that cannot start."""
    try:
        ray.get([worker.ready.remote() for worker in workers])
    except (RayActorError, RayTaskError) as error:
        raise unwrap(error) from error


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


def unwrap(error: Exception) -> Exception:
    """Return the LogitbankError inside an error of Ray, if there is one; otherwise the error itself."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, LogitbankError) else error
