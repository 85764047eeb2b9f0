"""Prefetcher: threads that read and decode the batches of the next steps while the model computes."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetcher(Generic[T]):
    """Yields make(first), make(first + 1), ... make(last - 1) in order, with up to `ahead` of them made in advance.

    Threads are enough, because decoding runs in compiled loops that release the GIL. waited: seconds that the caller
    waited for values.
    """

    def __init__(self, make: Callable[[int], T], first: int, last: int, ahead: int, threads: int) -> None:
        self._make, self._next, self._last = make, first, last
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="reader")
        self._futures: deque[Future[T]] = deque()
        self.waited = 0.0
        for _ in range(ahead):
            self._submit_next()

    def __iter__(self) -> Iterator[T]:
        while self._futures:
            future = self._futures.popleft()
            started = time.perf_counter()
            value = future.result()
            self.waited += time.perf_counter() - started
            self._submit_next()
            yield value

    def close(self) -> None:
        """Discard what was made in advance, and end the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _submit_next(self) -> None:
        if self._next < self._last:
            self._futures.append(self._pool.submit(self._make, self._next))
            self._next += 1
