"""The wish to stop: Ctrl-C, or SIGTERM, which clusters send before they take a machine away."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StoppedBySignal(KeyboardInterrupt):
    """The work in hand was finished after a signal. number: of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Interruption:
    """Notes the first signal, so that the work in hand can be finished; the second one ends it at once.

    A context manager. In another thread than the main one, it hears nothing. number: of the signal, None before it.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            # A signal that the shell has made this process ignore stays ignored.
            heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._previous = {number: signal.signal(number, self._note) for number in heard}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            raise StoppedBySignal(number)
        self.number = number

    def raise_if_noted(self) -> None:
        """Raise StoppedBySignal if there was a signal."""
        if self.number is not None:
            raise StoppedBySignal(self.number)
