"""Stores that several test files need."""

from pathlib import Path

import pytest

from cache.storage.local import LocalStorage
from tests.cache.store.damage import make_store


@pytest.fixture
def full_store(tmp_path: Path) -> LocalStorage:
    return make_store(tmp_path / "full")
