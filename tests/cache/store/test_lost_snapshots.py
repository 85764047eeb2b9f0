"""A lost or damaged segment, list of units, snapshot or copy: everything works on, and can be written again."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cache.errors import IntegrityError
from cache.json_documents import decode_document
from cache.storage.local import LocalStorage
from cache.store.copying.transcode import transcode_store
from cache.store.logit_store import LogitStore
from cache.store.quarantine.entries import quarantine_example
from cache.store.segments.files import units_path
from cache.store.snapshot_reading import latest_snapshot, read_snapshot
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from cache.store.upkeep.garbage_collection import collect_garbage
from cache.store.verify import verify_store
from tests.cache.rows.rows import TARGETS, assert_same_record, store_spec
from tests.cache.store.damage import make_store, units_of

SPEC = store_spec(TARGETS["topk"])
UNITS = 5
KINDS = ("segment", "units", "document", "copy")


@pytest.fixture(scope="module")
def sound_store(tmp_path_factory: pytest.TempPathFactory) -> LocalStorage:
    """A snapshot after each of UNITS units, each of which adds an example, and quarantine in between."""
    storage = make_store(tmp_path_factory.mktemp("sound") / "store", units=UNITS)
    for turn in range(2):
        quarantine_example(storage, f"{turn + 1}" * 32, "bad", "too long")
        take_snapshot(storage)
    return storage


@pytest.fixture
def storage(sound_store: LocalStorage, tmp_path: Path) -> LocalStorage:
    return LocalStorage(shutil.copytree(sound_store.root, tmp_path / "store"))


def files_of(storage: LocalStorage, number: int) -> dict[str, Path]:
    """The files of a snapshot and of its newest segment."""
    folder, segment = storage.root / "snapshots", read_snapshot(storage, number).segments[-1]
    return {
        "segment": storage.root / segment.path,
        "units": storage.root / units_path(segment.sha256),
        "document": folder / f"{number}.json",
        "copy": folder / f"{number}.copy.json",
    }


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes({"truncated": data[: len(data) // 2], "flipped": bytes([data[0] ^ 4]) + data[1:]}[how])


def assert_same_as(storage: LocalStorage, sound: LocalStorage, number: int) -> None:
    """Record by record, in the same order."""
    found, expected = (LogitStore.open(each.root, snapshot=number) for each in (storage, sound))
    assert np.array_equal(found.index.key, expected.index.key) and np.array_equal(found.index.unit, expected.index.unit)
    assert found.info().quarantined == expected.info().quarantined
    for record, other in zip(found, expected, strict=True):
        assert_same_record(record, other)


@pytest.mark.parametrize("how", ["missing", "truncated", "flipped"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_lost_file_stops_nothing_and_is_written_again(
    kind: str, how: str, storage: LocalStorage, sound_store: LocalStorage
) -> None:
    last = latest_snapshot(storage)
    for number in range(1, last + 1):
        path = files_of(storage, number)[kind]
        sound = path.read_bytes()
        damage(path, how)
        assert_same_as(storage, sound_store, number)
        report = verify_store(str(storage))
        assert report.problems and all(path.name in line and "verify --repair" in line for line in report.problems)
        repaired = verify_store(str(storage), repair=True)
        assert repaired.problems == [] and set(repaired.repaired) == {str(path.relative_to(storage.root))}
        assert path.read_bytes() == sound, number
    assert not verify_store(str(storage)).problems


@pytest.mark.parametrize("how", ["missing", "truncated", "flipped"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_capture_goes_on_beside_a_lost_file(
    kind: str, how: str, storage: LocalStorage, sound_store: LocalStorage
) -> None:
    last = latest_snapshot(storage)
    lost = files_of(storage, last)[kind]
    sound = lost.read_bytes()
    damage(lost, how)
    assert collect_garbage(storage, grace=-1.0).removed == []
    write_unit(storage, SPEC, units_of("topk", 1, seed=9)[0])
    assert take_snapshot(storage).number == last + 1
    if how == "missing" or kind in ("document", "copy"):  # a repair finds the others
        assert lost.read_bytes() == sound
    verify_store(str(storage), repair=True)
    assert lost.read_bytes() == sound
    assert_same_as(storage, sound_store, last)
    assert len(LogitStore.open(storage.root)) == 3 * (UNITS + 1)
    assert collect_garbage(storage, grace=-1.0).removed == [] and not verify_store(str(storage)).problems


def test_all_segments_at_once_are_made_again(storage: LocalStorage, sound_store: LocalStorage) -> None:
    last = latest_snapshot(storage)
    segments = list((storage.root / "index").glob("*.zarr.zip"))
    for path in segments:
        path.unlink()
    for number in range(1, last + 1):
        assert_same_as(storage, sound_store, number)
    assert len(verify_store(str(storage), repair=True).repaired) == len(segments) == UNITS
    assert take_snapshot(storage).number == last and not verify_store(str(storage)).problems


def test_a_lost_segment_follows_from_its_units_whatever_was_committed_since(
    storage: LocalStorage, sound_store: LocalStorage
) -> None:
    """Times of files do not matter, as after a copy of the store."""
    for path in (storage.root / "commits").iterdir():
        os.utime(path, (time.time(), time.time() - hash(path.name) % 1000))
    for seed in range(3):
        write_unit(storage, SPEC, units_of("topk", 1, seed=20 + seed)[0])
    files_of(storage, 2)["segment"].unlink()
    assert_same_as(storage, sound_store, 2)


@pytest.mark.parametrize("lost", ["commit", "units"])
def test_what_cannot_be_made_again_is_refused_by_name(lost: str, storage: LocalStorage) -> None:
    """A lost commit is not hidden by a lost segment."""
    last = latest_snapshot(storage)
    files = files_of(storage, last)
    files["segment"].unlink()
    path = files["units"]
    if lost == "commit":
        unit = decode_document(path.read_bytes(), "x")["units"][0][0]
        path = storage.root / f"commits/{unit}.json"
    path.unlink()
    segment = files["segment"].name
    calls: list[Callable[[], object]] = [
        lambda: LogitStore.open(storage.root),
        lambda: collect_garbage(storage, grace=-1.0),
    ]
    if lost == "commit":
        calls.append(lambda: take_snapshot(storage))
    for call in calls:
        with pytest.raises(IntegrityError, match=f"{segment}: missing; it cannot be made again: .*{path.name}: miss"):
            call()
    for repair in (False, True):
        problems = verify_store(str(storage), repair=repair).problems
        assert any(segment in line for line in problems)
    if lost == "units":  # every commit is there, so the next snapshot has all of them
        write_unit(storage, SPEC, units_of("topk", 1, seed=9)[0])
        assert take_snapshot(storage).number == last + 1
        assert len(LogitStore.open(storage.root)) == 3 * (UNITS + 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_with_a_lost_file_is_copied(
    kind: str, storage: LocalStorage, sound_store: LocalStorage, tmp_path: Path
) -> None:
    last = latest_snapshot(storage)
    files_of(storage, last)[kind].unlink()
    transcode_store(str(storage.root), str(tmp_path / "copy"), "compact")
    found, expected = LogitStore.open(tmp_path / "copy"), LogitStore.open(sound_store.root)
    assert sorted(found.key(i) for i in range(len(found))) == sorted(expected.key(i) for i in range(len(expected)))
    assert found.info().quarantined == expected.info().quarantined == 3


def test_a_store_that_may_only_be_read_opens_without_its_index() -> None:
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        storage = make_store(Path(folder) / "store")
        before = len(LogitStore.open(storage.root))
        files_of(storage, 2)["segment"].unlink()
        files_of(storage, 2)["document"].unlink()
        child = os.fork()
        if child == 0:
            os.setuid(65534)
            try:
                os._exit(len(list(LogitStore.open(storage.root))))
            finally:
                os._exit(255)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == before == 6


def test_a_document_without_a_valid_checksum_is_put_right(storage: LocalStorage, sound_store: LocalStorage) -> None:
    document = files_of(storage, 3)["document"]
    sound = document.read_bytes()
    document.write_bytes((storage.root / "snapshots/2.json").read_bytes().replace(b'"number":2', b'"number":3'))
    assert any("3.json: altered" in line for line in verify_store(str(storage)).problems)
    assert verify_store(str(storage), repair=True).repaired == ["snapshots/3.json"]
    assert document.read_bytes() == sound


def test_an_index_that_a_killed_writer_left_is_there_when_it_is_named(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name comes again, and garbage collection removes it between the index and the snapshot."""
    write_unit(storage, SPEC, units_of("topk", 1, seed=9)[0])
    last = latest_snapshot(storage)
    create = LocalStorage.create

    class KilledError(Exception):
        pass

    def killed(self: LocalStorage, name: str, data: bytes) -> bool:
        if name == f"snapshots/{last + 1}.json":
            raise KilledError
        return create(self, name, data)

    def collected(self: LocalStorage, name: str, data: bytes) -> bool:
        if name == f"snapshots/{last + 1}.json":
            assert len(collect_garbage(LocalStorage(self.root), grace=-1.0).removed) == 2
        return create(self, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "create", killed)
        with pytest.raises(KilledError):
            take_snapshot(storage)
        patch.setattr(LocalStorage, "create", collected)
        assert take_snapshot(storage).number == last + 1
    assert not verify_store(str(storage)).problems
