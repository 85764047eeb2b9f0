"""The first signal is noted, the second one ends the work."""

import os
import signal
import threading

import pytest

from cluster.runtime.interruption import Interruption, StoppedBySignal


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_ends_the_work(number: signal.Signals) -> None:
    before = signal.signal(number, signal.default_int_handler)
    try:
        with Interruption() as interruption:
            interruption.raise_if_noted()
            os.kill(os.getpid(), number)
            assert interruption.number == number
            with pytest.raises(StoppedBySignal):
                interruption.raise_if_noted()
            with pytest.raises(StoppedBySignal) as stopped:
                os.kill(os.getpid(), number)
            assert stopped.value.number == number and isinstance(stopped.value, KeyboardInterrupt)
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)


def test_an_ignored_signal_stays_ignored_and_threads_hear_none() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.number is None
    finally:
        signal.signal(signal.SIGTERM, before)
    thread = threading.Thread(target=lambda: Interruption().__enter__())
    thread.start()
    thread.join()
