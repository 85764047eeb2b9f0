"""Windows of examples that were read together, and wait for their batch."""

import threading
from collections.abc import Sequence

from cache.rows.record import Window
from student.data.sources import Examples


class HeldWindows:
    """Windows by example. Each is kept until it was taken as often as it was read. Safe between threads.

    A window takes about 9 bytes for each entry of its targets: at k = 64, 0.6 KB a token.
    """

    def __init__(self, source: Examples) -> None:
        self._source = source
        self._windows: dict[int, list[Window]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Number of windows that wait."""
        with self._lock:
            return sum(map(len, self._windows.values()))

    def hold(self, examples: Sequence[int]) -> None:
        """Read the examples in one request, and keep them."""
        # Copies: what was read is a view of a whole run, which would stay until the last example of it was taken.
        windows = [window.copy() for window in self._source.read(examples)]
        with self._lock:
            for example, window in zip(examples, windows, strict=True):
                self._windows.setdefault(example, []).append(window)

    def take(self, examples: Sequence[int]) -> list[Window]:
        """The windows of the examples, in the requested order. Those that do not wait are read now, in one request."""
        with self._lock:
            windows = [self._pop(example) for example in examples]
        missing = [position for position, window in enumerate(windows) if window is None]
        if missing:
            for position, window in zip(missing, self._source.read([examples[i] for i in missing]), strict=True):
                windows[position] = window
        return windows  # type: ignore[return-value]

    def _pop(self, example: int) -> Window | None:
        """A window of the example that waits, which then no longer does."""
        waiting = self._windows.get(example)
        if waiting is None:
            return None
        window = waiting.pop()
        if not waiting:
            del self._windows[example]
        return window
