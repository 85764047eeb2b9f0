"""How often a service may be asked."""

import threading
import time
from collections.abc import Callable


class RateLimit:
    """A bucket that one token drips into 60 / per_minute seconds after another. Threads may share it.

    per_minute: None where there is no limit. burst: tokens that it holds at most, and at the start. clock, sleep: those
    of the time module.
    """

    def __init__(
        self,
        per_minute: float | None,
        burst: int = 1,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._per_second = (per_minute or 0.0) / 60
        self._burst = burst
        self._clock, self._sleep = clock, sleep
        self._lock = threading.Lock()
        self._tokens, self._filled_at = float(burst), clock()

    def wait(self) -> None:
        """Take a token, and return when it is there. Callers are served in the order that they came."""
        if not self._per_second:
            return
        with self._lock:
            now = self._clock()
            self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._per_second)
            self._filled_at = now
            # Below 0: tokens that are promised to those who wait.
            self._tokens -= 1
            delay = -self._tokens / self._per_second
        if delay > 0:
            self._sleep(delay)
