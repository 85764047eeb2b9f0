"""The batches of coming steps, read and decoded by threads while the model works. Knows nothing of what a batch is."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetcher(Generic[T]):
    """make(first), make(first + 1), ... make(last - 1) in order, up to `ahead` of them made before they are asked for.

    Threads are enough: decoding runs in compiled loops that let others run. waited: seconds that the caller waited.
    """

    def __init__(self, make: Callable[[int], T], first: int, last: int, ahead: int, threads: int) -> None:
        self._make, self._next, self._last = make, first, last
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="reader")
        self._made: deque[Future[T]] = deque()
        self.waited = 0.0
        for _ in range(ahead):
            self._order()

    def __iter__(self) -> Iterator[T]:
        while self._made:
            future = self._made.popleft()
            started = time.perf_counter()
            value = future.result()
            self.waited += time.perf_counter() - started
            self._order()
            yield value

    def close(self) -> None:
        """Drop what was made ahead and end the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _order(self) -> None:
        if self._next < self._last:
            self._made.append(self._pool.submit(self._make, self._next))
            self._next += 1
