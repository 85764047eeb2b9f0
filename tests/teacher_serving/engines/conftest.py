"""Engines outlive the tests that share them, and end with the session."""

from collections.abc import Iterator

import pytest

from tests.teacher_serving.engines.engines import close_engines


@pytest.fixture(scope="session", autouse=True)
def engines_end() -> Iterator[None]:
    yield
    close_engines()
