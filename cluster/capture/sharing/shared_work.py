"""SharedWork: the units of a job that this driver captures, beside other drivers on the same store."""

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from cache.store.segments.keys import Array
from cluster.capture.input.unit_stream import UnitStream
from cluster.capture.input.work import Work
from cluster.capture.sharing.leases import Leases

Find = Callable[[Array], npt.NDArray[np.bool_]]
# How often windows of other drivers are looked at, once all others are captured.
LOOK_SECONDS = 2.0


class SharedWork:
    """A source of units. Windows that another driver captures are left for the end, when most of them are captured.

    find_known: which of some keys, void16 [n], the store has by now or has set aside, bool [n]. others: responses that
    wait for another driver; elsewhere: those that others have captured.
    """

    def __init__(self, stream: UnitStream, leases: Leases, find_known: Find) -> None:
        self._stream, self._leases, self._find_known = stream, leases, find_known
        self._left: Counter[str] = Counter()
        self._waiting: dict[str, list[Work]] = {}
        self._ready: deque[Work] = deque()
        self._looked = 0.0
        self.elsewhere = 0

    @property
    def others(self) -> int:
        """Responses that wait for another driver."""
        return sum(len(work) for works in self._waiting.values() for work in works)

    @property
    def is_exhausted(self) -> bool:
        """See Source."""
        return self._stream.is_exhausted and not self._waiting and not self._ready

    def take(self) -> Work | None:
        """See Source."""
        self._release()
        while not self._ready:
            work = self._stream.take()
            if work is None:
                break
            if work.window not in self._waiting and self._leases.claim(work.window):
                self._left[work.window] += len(work)
                return work
            self._waiting.setdefault(work.window, []).append(work)
        if not self._ready and self._stream.is_exhausted and self._waiting:
            self._look()
        return self._ready.popleft() if self._ready else None

    def finished(self, work: Work) -> None:
        """A unit, or a part of one, is captured or given up."""
        self._left[work.window] -= len(work)

    def _release(self) -> None:
        """Give back the leases of windows of which everything is captured."""
        for window in [window for window, count in self._left.items() if count <= 0]:
            # All units of a window are taken before the next one is planned.
            if self._stream.is_exhausted or self._stream.last_window != window:
                del self._left[window]
                self._leases.release(window)

    def _look(self) -> None:
        """Take over what other drivers have left, and forget what they have captured."""
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        taken = [window for window in self._waiting if self._leases.claim(window)]
        if not taken:
            return
        works = [work for window in taken for work in self._waiting.pop(window)]
        missing = ~self._find_known(np.concatenate([work.keys for work in works]))
        ends = np.cumsum([len(work) for work in works])
        for work, places in zip(works, np.split(np.arange(ends[-1]), ends[:-1]), strict=True):
            rest = np.flatnonzero(missing[places])
            if len(rest):
                self._ready.append(
                    replace(work, places=work.places[rest], examples=work.examples[rest], keys=work.keys[rest])
                )
            self._left[work.window] += len(rest)
            self.elsewhere += len(work) - len(rest)
