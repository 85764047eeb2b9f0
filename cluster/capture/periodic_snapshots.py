"""Snapshots while a capture runs: a run that is killed is continued from the index, and others read what there is."""

import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor

from cache.errors import LogitbankError
from cache.storage.base import Storage
from cache.store.snapshots import take_snapshot

# Without a snapshot, each commit is read when the capture goes on: 0.3 ms on a local disk, more in an object store.
SECONDS = 600.0


class PeriodicSnapshots:
    """Takes a snapshot of a store every `seconds`, in a thread of its own. A failure is told and tried again."""

    def __init__(self, storage: Storage, seconds: float = SECONDS) -> None:
        self._storage, self._seconds = storage, seconds
        self._thread = ThreadPoolExecutor(1, "snapshot")
        self._running: Future[None] | None = None
        self._last = time.monotonic()

    def poll(self) -> None:
        """Begin one, if it is time to and none is being taken."""
        if self._running is not None and not self._running.done():
            return
        if time.monotonic() - self._last >= self._seconds:
            self._last = time.monotonic()
            self._running = self._thread.submit(self._take)

    def end(self) -> None:
        """Wait for the one that is being taken."""
        self._thread.shutdown(wait=True)

    def _take(self) -> None:
        try:
            take_snapshot(self._storage)
        except LogitbankError as error:
            print(f"capture: no snapshot was taken, which is tried again: {error}", file=sys.stderr, flush=True)
