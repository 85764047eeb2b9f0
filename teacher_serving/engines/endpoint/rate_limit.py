"""RateLimit: limits how many requests are sent to a service in a minute."""

import threading
import time
from collections.abc import Callable


class RateLimit:
    """A token bucket that gains one token every 60 / per_minute seconds. Threads may share it.

    per_minute: None for no limit. burst: capacity of the bucket, which starts full. clock, sleep: replaceable in tests.
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
        """Take a token, and wait until it is available. Callers are served in order of arrival."""
        if not self._per_second:
            return
        with self._lock:
            now = self._clock()
            self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._per_second)
            self._filled_at = now
            # A negative number counts the tokens that waiting callers have reserved.
            self._tokens -= 1
            delay = -self._tokens / self._per_second
        if delay > 0:
            self._sleep(delay)
