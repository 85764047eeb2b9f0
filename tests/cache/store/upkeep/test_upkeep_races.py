"""Garbage collection, expiry and forgetting beside writers and readers that slept at the worst moment."""

import shutil
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cache.store.snapshot_reading
import cache.store.snapshots
from cache.storage.local import LocalStorage
from cache.store.commits import committed_units, part_path, publish_commit, read_commit, withdraw_if_incomplete
from cache.store.logit_store import LogitStore
from cache.store.quarantine.entries import quarantine_example
from cache.store.snapshot_reading import latest_snapshot, snapshot_numbers
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from cache.store.upkeep.expiring import expire_snapshots
from cache.store.upkeep.forgetting import forget_examples
from cache.store.upkeep.garbage_collection import collect_garbage
from cache.store.verify import verify_store
from tests.cache.rows.rows import TARGETS, random_record, store_spec
from tests.cache.store.upkeep.test_forgetting import files_with, make_records, make_store, secrets_of, take_down

SPEC = store_spec(TARGETS["topk"])


class RacingStorage(LocalStorage):
    """Another process does something once, in the moment before a file whose name starts so is removed."""

    def __init__(self, root: Path, prefix: str, action: Callable[[], object]) -> None:
        super().__init__(root)
        self._prefix, self._actions = prefix, [action]

    def remove_folder(self, folder: str) -> None:
        if folder.startswith(self._prefix) and self._actions:
            self._actions.pop()()
        super().remove_folder(folder)


def add_unit(storage: LocalStorage, seed: int) -> None:
    rng = np.random.default_rng(seed)
    write_unit(storage, SPEC, [random_record(rng, f"more{seed}", 3, 9, TARGETS["topk"])])


def test_a_number_of_a_snapshot_is_never_given_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one process makes a snapshot, others take the same number and later ones, forget, expire and collect."""
    storage = make_store(tmp_path / "store")
    quarantine_example(storage, "ef" * 16, "another", "too long")
    others = []

    def slowly(*arguments: object, original: Callable[..., object] = cache.store.snapshots.current_pieces) -> object:
        pieces = original(*arguments)
        if not others:
            others.append(LocalStorage(storage.root))
            add_unit(others[0], 1)
            take_snapshot(others[0])
            take_down(others[0], ["u0e3"])
        return pieces

    monkeypatch.setattr(cache.store.snapshots, "current_pieces", slowly)
    assert take_snapshot(storage).number == latest_snapshot(storage) == 5
    assert snapshot_numbers(storage) == [5]
    collect_garbage(storage)
    assert files_with(storage, secrets_of(make_records(TARGETS["topk"])[0][3:4])) <= {
        f"forgotten/{make_records(TARGETS['topk'])[0][3].key}.json"
    }
    report = verify_store(str(storage))
    assert not report.problems and not report.remaining
    assert len(list(LogitStore.open(storage.root))) == 20


def test_files_of_an_expired_snapshot_count_for_nothing(tmp_path: Path) -> None:
    """A process that slept writes a document of a snapshot again that expired meanwhile."""
    storage = make_store(tmp_path / "store")
    document = storage.read("snapshots/2.json")
    assert expire_snapshots(storage, keep=1) == [1, 2]
    storage.create("snapshots/2.json", document)
    collect_garbage(storage, grace=-1.0)
    assert storage.size("snapshots/2.json") is None and snapshot_numbers(storage) == [3]
    storage.create("snapshots/2.copy.json", document)
    assert expire_snapshots(storage, keep=1) == [] and storage.size("snapshots/2.copy.json") is None
    assert not verify_store(str(storage)).problems


def test_a_part_with_a_forgotten_example_that_is_committed_in_this_moment(tmp_path: Path) -> None:
    """Its commit goes with it: the other examples of the unit are captured again, not lost behind a commit."""
    storage = make_store(tmp_path / "store")
    unit = committed_units(storage)[0]
    commit, _ = read_commit(storage, unit)
    forget_examples(str(storage), [commit.examples[0].key])
    path = part_path(unit, uuid.uuid4().hex)
    shutil.copy(storage.path(commit.part.path), storage.path(path))
    storage.remove_folder(f"commits/{unit}.json")
    for name in storage.names("snapshots"):
        storage.remove_folder(f"snapshots/{name}")
    storage.remove_folder(commit.part.path)

    def commit_now() -> None:
        assert publish_commit(storage, replace(commit, part=replace(commit.part, path=path)))
        withdraw_if_incomplete(storage, f"commits/{unit}.json", [path])

    report = collect_garbage(RacingStorage(storage.root, path, commit_now))
    assert report.withdrawn == [f"commits/{unit}.json"]
    take_snapshot(storage)
    assert not verify_store(str(storage)).problems and len(list(LogitStore.open(storage.root))) == 15


@pytest.mark.parametrize("suffix", [".zarr.zip", ".units"])
def test_a_segment_of_a_killed_writer_that_a_snapshot_lists_in_this_moment(suffix: str, tmp_path: Path) -> None:
    storage = make_store(tmp_path / "store")
    add_unit(storage, 1)
    before = set(storage.names("index"))
    other = LocalStorage(shutil.copytree(storage.root, tmp_path / "copy"))
    take_snapshot(other)
    left = sorted(set(other.names("index")) - before)
    for name in left:
        shutil.copy(other.path(f"index/{name}"), storage.path(f"index/{name}"))
    (name,) = [name for name in left if name.endswith(suffix)]
    racing = RacingStorage(storage.root, f"index/{name}", lambda: take_snapshot(LocalStorage(storage.root)))
    collect_garbage(racing, grace=-1.0)
    assert {f"index/{name}" for name in left} <= set(storage.walk("index"))
    assert not verify_store(str(storage)).problems and len(list(LogitStore.open(storage.root))) == 21


def test_a_reader_opens_the_newest_snapshot_though_its_choice_expires(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = make_store(tmp_path / "store")
    store, done = LogitStore.open(storage.root), []

    def slowly(*arguments: object, original: Callable[..., int] = cache.store.snapshot_reading.latest_snapshot) -> int:
        number = original(*arguments)
        if len(done) < 2:
            done.append(number)
            add_unit(storage, number)
            take_snapshot(LocalStorage(storage.root))
            expire_snapshots(storage, keep=1)
            collect_garbage(storage, grace=-1.0)
        return number

    monkeypatch.setattr(cache.store.snapshot_reading, "latest_snapshot", slowly)
    newest = LogitStore.open(storage.root)
    assert len(done) == 2 and len(newest) > len(store)
    del done[:]
    assert len(store.refresh()) > len(newest)
    del done[:]
    assert len(LogitStore.open(storage.root, unpinned=True)) >= len(newest)


def test_unfinished_writes_with_a_forgotten_example_are_named_until_they_are_removed(tmp_path: Path) -> None:
    """A writer may be alive: its files wait for the grace. Nobody says meanwhile that the example is gone."""
    storage = make_store(tmp_path / "store")
    record = make_records(TARGETS["topk"])[0][3]
    units = committed_units(storage)
    (unit,) = [u for u in units if record.key in {e.key for e in read_commit(storage, u)[0].examples}]
    (segment, *_) = storage.names("index", ".zarr.zip")
    cut = f"parts/{unit}/{'0' * 32}.zarr.zip"
    left = {
        f"commits/.{unit}.json.{'1' * 32}": storage.read(f"commits/{unit}.json"),
        f"index/.{segment}.{'1' * 32}": storage.read(f"index/{segment}"),
        cut: storage.read(read_commit(storage, unit)[0].part.path)[:-50],
    }
    take_down(storage, [record.key])
    assert not verify_store(str(storage)).remaining
    for name, content in left.items():
        storage.path(name).parent.mkdir(exist_ok=True)
        storage.path(name).write_bytes(content)
    storage.path("commits/.another").write_bytes(b"nothing")
    names = set(left)
    assert set(verify_store(str(storage)).remaining) == names
    report = collect_garbage(storage)
    assert names | {"commits/.another"} <= set(report.young)
    assert {line.partition(" ")[0] for line in report.waiting} == names
    collect_garbage(storage, grace=-1.0)
    assert not verify_store(str(storage)).remaining
    assert files_with(storage, secrets_of([record])) == {f"forgotten/{record.key}.json"}
