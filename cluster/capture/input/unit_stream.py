"""Units of a job in the order of its examples. Windows are planned ahead, a few at a time."""

import pickle
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import ray
from ray.exceptions import RayTaskError

from cache.examples.files.windows import Window
from cluster.capture.input.job import CaptureJob
from cluster.capture.input.planned_input import PlannedInput
from cluster.capture.input.tries import Tries
from cluster.capture.input.window_planning import PlannedWindow, Unit, plan_window
from cluster.capture.input.work import Work
from cluster.runtime.ray_session import own_error
from cluster.runtime.shared_object import shared_object


class Planner(Protocol):
    """Plans the windows of an input in their order."""

    def next(self) -> tuple[PlannedWindow, Any] | None:
        """The next window and its units, or Ray's reference to them; None if it is not ready yet.

        Raises StopIteration after the last window.
        """
        ...


class LocalPlanner:
    """Plans in this process, when a window is asked for."""

    def __init__(self, job: CaptureJob, windows: Iterator[Window]) -> None:
        self._numbers = _Numbers(job)
        self._windows, self._job = windows, job

    def next(self) -> tuple[PlannedWindow, list[Unit]] | None:
        """See Planner."""
        planned, units = plan_window(self._job, next(self._windows), *self._numbers.next())
        self._numbers.add(planned)
        return planned, units


class PackedUnits:
    """Units of a window as bytes: who needs one of them unpacks no other. Ray shares the bytes between processes."""

    def __init__(self, units: Sequence[Unit]) -> None:
        packed = [pickle.dumps(unit, protocol=pickle.HIGHEST_PROTOCOL) for unit in units]
        self._ends = np.cumsum([len(each) for each in packed])
        self._bytes = np.frombuffer(b"".join(packed), np.uint8)

    def __getitem__(self, number: int) -> Unit:
        start = self._ends[number - 1] if number else 0
        unit: Unit = pickle.loads(self._bytes.data[start : self._ends[number]])
        return unit


class RayPlanner:
    """Plans in tasks of Ray, `ahead` windows at a time. The units stay in Ray's object store.

    shared: the job in Ray's object store (cluster.runtime.shared_object).
    """

    def __init__(self, job: CaptureJob, shared: list[Any], windows: Iterator[Window], ahead: int) -> None:
        self._numbers = _Numbers(job)
        self._windows, self._ahead = windows, ahead
        self._job = shared
        # They need no core of their own: on a small machine the engines have all.
        self._plan = ray.remote(_plan_window).options(num_cpus=0, num_returns=2, scheduling_strategy="SPREAD")
        self._tasks: deque[tuple[Any, Any]] = deque()
        self._is_read = False

    def next(self) -> tuple[PlannedWindow, Any] | None:
        """See Planner."""
        self._submit()
        if not self._tasks:
            raise StopIteration
        planned, units = self._tasks[0]
        if not ray.wait([planned], timeout=0)[0]:
            return None
        self._tasks.popleft()
        try:
            window: PlannedWindow = ray.get(planned)
        except RayTaskError as error:
            raise own_error(error) from error
        self._numbers.add(window)
        self._submit()
        return window, units

    def _submit(self) -> None:
        # While examples are counted, a window can be planned only after the one before it.
        while not self._is_read and len(self._tasks) < (1 if self._numbers.are_needed else self._ahead):
            window = next(self._windows, None)
            if window is None:
                self._is_read = True
                return
            self._tasks.append(tuple(self._plan.remote(self._job, window, *self._numbers.next())))


class UnitStream:
    """The units that a store lacks, one after the other.

    input: what the windows so far are. is_complete: whether all windows are planned. last_window: name of the last one.
    on_window: called with each.
    """

    def __init__(
        self, job: CaptureJob, planner: Planner, on_window: Callable[[PlannedWindow], None], tries: Tries
    ) -> None:
        self.input = PlannedInput(job)
        self.is_complete = False
        self._tries = tries
        self._planner, self._on_window = planner, on_window
        self._ready: deque[Work] = deque()
        self._number = 0
        self.last_window = ""

    def take(self) -> Work | None:
        """The next unit; None if none is planned yet, or after the last one."""
        while not self._ready and not self.is_complete:
            try:
                planned = self._planner.next()
            except StopIteration:
                self.is_complete = True
                self.input.require_examples()
                break
            if planned is None:
                return None
            self._add(*planned)
        return self._ready.popleft() if self._ready else None

    def put_back(self, work: Work) -> None:
        """Make a unit that was taken the next one again."""
        self._ready.appendleft(work)

    @property
    def ready(self) -> int:
        """Number of units that are planned and not taken."""
        return len(self._ready)

    @property
    def is_exhausted(self) -> bool:
        """Whether no unit comes any more."""
        return self.is_complete and not self._ready

    def _add(self, window: PlannedWindow, units: Any) -> None:
        new = self.input.add(window)
        is_local = isinstance(units, Sequence)
        # Every driver of the job has this window with this first response, whatever the store has of it by then.
        self.last_window = window.keys[0].tobytes().hex() if len(window.keys) else ""
        for number in range(int(window.unit.max(initial=-1)) + 1):
            self._number += 1
            chosen = np.flatnonzero((window.unit == number) & new)
            # Of a unit in this process, only it is sent to a worker, and not its window.
            given, place = ([units[number]], 0) if is_local else (units, number)
            for part, deaths in self._tries.divide(window.keys[chosen], window.example[chosen]):
                items = chosen[part]
                places, examples = window.place[items], window.example[items]
                name = f"unit {self._number}"
                self._ready.append(
                    Work(given, place, places, examples, window.keys[items], name, self.last_window, deaths)
                )
        self._on_window(window)


class _Numbers:
    """How many examples come before a window. They are counted where a job names a number of examples."""

    def __init__(self, job: CaptureJob) -> None:
        self._limit = job.settings.limit
        self._written = job.settings.generation.examples if job.settings.generation else None
        self._used = 0

    @property
    def are_needed(self) -> bool:
        """Whether the plan of the next window depends on the number of examples before it."""
        return any(most is not None and self._used < most for most in (self._limit, self._written))

    def next(self) -> tuple[int, int | None]:
        """The examples before the next window, and how many of it are used at most."""
        return self._used, None if self._limit is None else self._limit - self._used

    def add(self, window: PlannedWindow) -> None:
        """Count the examples of the window."""
        self._used += window.examples
        if self._limit is not None:
            self._used = min(self._used, self._limit)


def _plan_window(job: list[Any], window: Window, first: int, most: int | None) -> tuple[PlannedWindow, PackedUnits]:
    planned, units = plan_window(shared_object(job), window, first, most)
    return planned, PackedUnits(units)
