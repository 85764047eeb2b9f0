"""Snapshots of a store while it is filled."""

from pathlib import Path

import pytest

from cache.errors import StoreError
from cache.storage.local import LocalStorage
from cache.store.snapshot_reading import latest_snapshot
from cluster.capture import periodic_snapshots
from cluster.capture.periodic_snapshots import PeriodicSnapshots
from tests.student.training.ranks import TOPK, add_unit, make_store


@pytest.fixture
def storage(tmp_path: Path, tiny_model: Path) -> LocalStorage:
    return LocalStorage(make_store(tmp_path / "store", tiny_model, TOPK, 19))


def test_what_was_committed_since_is_pinned_when_it_is_time(storage: LocalStorage) -> None:
    add_unit(storage.root, 5)
    for name in ("3.json", "3.copy.json"):
        assert not (storage.root / "snapshots" / name).exists()
    (storage.root / "snapshots/2.json").unlink()
    (storage.root / "snapshots/2.copy.json").unlink()
    early = PeriodicSnapshots(storage, seconds=3600)
    early.poll()
    early.end()
    assert latest_snapshot(storage) == 1
    due = PeriodicSnapshots(storage, seconds=0)
    due.poll()
    due.end()
    assert latest_snapshot(storage) == 2


def test_a_failure_is_told_and_ends_nothing(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise StoreError("the service is away")

    monkeypatch.setattr(periodic_snapshots, "take_snapshot", fail)
    snapshots = PeriodicSnapshots(storage, seconds=0)
    for _ in range(2):
        snapshots.poll()
    snapshots.end()
    assert "capture: no snapshot was taken, which is tried again: the service is away" in capsys.readouterr().err
