"""A lock that the child of a fork finds open, also if a thread of the parent had it at that moment."""

import os
import threading
import weakref


class ForkSafeLock:
    """A lock for a `with` block. What it protects must be usable at any moment, because a fork does not wait for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _LOCKS.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()


# The child of a fork has a copy of every lock, but only the thread that forked: nobody would release the others' locks.
_LOCKS: "weakref.WeakSet[ForkSafeLock]" = weakref.WeakSet()


def _renew_locks() -> None:
    for lock in _LOCKS:
        lock._lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_locks)
