"""What tests of trainings share."""

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture
def heeds_interrupts() -> Iterator[None]:
    """SIGINT interrupts this process. A shell that starts a command in the background makes it ignore SIGINT."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)
