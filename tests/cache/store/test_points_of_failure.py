"""Every point at which a write can fail leaves what was committed, and a rerun completes the rest."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cache.errors import LogitbankError, StoreError
from cache.storage import durable_files
from cache.storage.local import LocalStorage
from cache.store import unit_writer
from cache.store.commits import committed_units, create_store, read_commit
from cache.store.garbage_collection import collect_garbage
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from cache.store.verify import verify_store
from tests.cache.rows.rows import TARGETS, store_spec
from tests.cache.store.damage import contents, units_of

CALLS = ("link", "fsync", "mkdir", "unlink")
SPEC = store_spec(TARGETS["topk"])


@contextmanager
def failing_call(number: int, works_first: bool) -> Iterator[list[str]]:
    """Within, one of the calls of CALLS raises EIO, after or instead of its work. Yields the names of all calls."""
    calls: list[str] = []
    # Without the time that a disk takes: no machine loses its power here.
    originals = {**{name: getattr(os, name) for name in CALLS}, "fsync": lambda handle: None}

    def wrap(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            calls.append(name)
            fails = len(calls) == number
            result = original(*arguments, **options) if works_first or not fails else None
            if fails:
                raise OSError(5, "Input/output error")
            return result

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name, original in originals.items():
            patch.setattr(os, name, wrap(name, original))
        yield calls


@pytest.mark.slow
@pytest.mark.parametrize("works_first", [True, False], ids=["after its work", "instead of its work"])
@pytest.mark.parametrize("is_first_unit", [True, False], ids=["first unit, with its codebook", "second unit"])
def test_no_failing_call_loses_a_commit(tmp_path: Path, works_first: bool, is_first_unit: bool) -> None:
    """Would catch an error after the commit that removes the committed part."""
    first, second = units_of("topk", 2)
    before = tmp_path / "before"
    create_store(LocalStorage(before), SPEC)
    if not is_first_unit:
        write_unit(LocalStorage(before), SPEC, first)
        take_snapshot(LocalStorage(before))
    number, refused = 0, 0
    while True:
        number += 1
        storage = LocalStorage(tmp_path / str(number))
        shutil.copytree(before, storage.root)
        with failing_call(number, works_first) as calls:
            try:
                write_unit(storage, SPEC, second)
                take_snapshot(storage)
            except LogitbankError:
                refused += 1
        for unit in committed_units(storage):
            commit = read_commit(storage, unit)[0]
            stored = set(storage.walk(commit.part.path))
            assert stored == {f"{commit.part.path}/{name}" for name in commit.files}, calls[number - 1 : number]
        with failing_call(0, works_first):
            write_unit(storage, SPEC, second)
            take_snapshot(storage)
        expected = {record.key for record in (second if is_first_unit else first + second)}
        assert {record.key for record in contents(storage)} == expected
        if len(calls) < number:
            break
        shutil.rmtree(storage.root)
    assert number > 20 and refused > 10


def answer_lost(source: Any, target: Any) -> None:
    """The link of an NFS client whose answer was lost: it sends the request again, and meets its own link."""
    LINK(source, target)
    raise FileExistsError(17, "File exists", str(target))


LINK = os.link


def test_a_link_whose_answer_was_lost_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the spec, the codebook, a commit, and a snapshot; and another writer's file is still another's."""
    storage = LocalStorage(tmp_path / "store")
    units = units_of("topk", 2)
    monkeypatch.setattr(os, "link", answer_lost)
    create_store(storage, SPEC)
    assert write_unit(storage, SPEC, units[0])[1]
    assert write_unit(storage, SPEC, units[1])[1]
    assert not write_unit(storage, SPEC, units[1])[1]
    take_snapshot(storage)
    assert len(contents(storage)) == 6 and not verify_store(str(storage)).problems


def test_a_part_that_was_removed_before_its_commit_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that slept longer than the grace of a garbage collection."""
    storage = LocalStorage(tmp_path / "store")
    create_store(storage, SPEC)
    first, second = units_of("topk", 2)
    write_unit(storage, SPEC, first)
    publish = unit_writer.publish_commit

    def collect_and_publish(*arguments: Any) -> bool:
        assert len(collect_garbage(LocalStorage(storage.root), grace=-1.0).removed) == 1
        return publish(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(unit_writer, "publish_commit", collect_and_publish)
        with pytest.raises(StoreError, match=r"removed before commits/.* was written.*is withdrawn; run the job again"):
            write_unit(storage, SPEC, second)
    assert len(committed_units(storage)) == 1
    assert write_unit(storage, SPEC, second)[1]
    take_snapshot(storage)
    assert len(contents(storage)) == 6


def test_garbage_collection_looks_again_before_it_removes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit that is committed while garbage collection runs, after it has read the commits."""
    storage = LocalStorage(tmp_path / "store")
    create_store(storage, SPEC)
    first, second = units_of("topk", 2)
    write_unit(storage, SPEC, first)
    age = LocalStorage.age

    def commit_and_age(self: LocalStorage, name: str) -> float:
        if name.startswith("parts/") and len(committed_units(storage)) == 1:
            release.set()
            writer.join()
        return age(self, name)

    release, publish = threading.Event(), unit_writer.publish_commit

    def wait_and_publish(*arguments: Any) -> bool:
        assert release.wait(60)
        return publish(*arguments)

    monkeypatch.setattr(unit_writer, "publish_commit", wait_and_publish)
    writer = threading.Thread(target=write_unit, args=(storage, SPEC, second))
    writer.start()
    while len(storage.names("parts")) < 2 or not any(storage.walk(f"parts/{storage.names('parts')[-1]}")):
        pass
    monkeypatch.setattr(LocalStorage, "age", commit_and_age)
    assert not collect_garbage(storage, grace=-1.0).removed
    take_snapshot(storage)
    assert len(contents(storage)) == 6


@pytest.mark.parametrize("has_folders", [False, True], ids=["new", "folders that another writer has just made"])
def test_all_files_and_folders_are_durable_before_the_commit(
    has_folders: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch a removed fsync: of a file, of the folder that names it, or of the folder above a new store."""
    events: list[tuple[str, str]] = []
    fsync, link = os.fsync, os.link

    def record_fsync(handle: int) -> None:
        events.append(("fsync", str(Path(f"/proc/self/fd/{handle}").readlink())))
        fsync(handle)

    def record_link(source: Any, target: Any) -> None:
        events.append(("link", str(target)))
        link(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "link", record_link)
    root = tmp_path / "runs" / "store"
    storage = LocalStorage(root)
    create_store(storage, SPEC)
    if has_folders:
        for name in ("parts", "codebooks", "commits"):
            (root / name).mkdir()
        events.clear()
    commit, _ = write_unit(storage, SPEC, units_of("topk", 1)[0])
    linked = events.index(("link", str(root / "commits" / f"{commit.unit}.json")))
    synced = {path for kind, path in events[:linked] if kind == "fsync"}
    part = root / commit.part.path
    files = [path for path in part.rglob("*") if path.is_file()]
    above = [] if has_folders else [tmp_path, tmp_path / "runs"]
    folders = [*above, root, root / "parts", part.parent, part, root / "codebooks"]
    folders += [path for path in (*part.rglob("*"), *(root / "codebooks").rglob("*")) if path.is_dir()]
    assert len(files) > 10
    assert [path for path in (*files, *folders) if str(path) not in synced] == []
    drafts = [path for path in synced if path.startswith(str(root / "commits" / f".{commit.unit}"))]
    assert len(drafts) == 1, "the commit's own bytes"
    after = [path for kind, path in events[linked:] if kind == "fsync"]
    assert str(root / "commits") in after and str(root) in after


def test_ranges_longer_than_one_call_returns_are_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux returns at most 2,147,479,552 bytes from one call; here it is 100."""
    storage = LocalStorage(tmp_path)
    data = os.urandom(1234)
    (tmp_path / "file").write_bytes(data)
    pread = os.pread
    monkeypatch.setattr(durable_files.os, "pread", lambda handle, length, start: pread(handle, min(length, 100), start))
    assert storage.read_ranges([("file", 0, 1234), ("file", 7, 301), ("file", 1200, 100)]) == [
        data,
        data[7:308],
        data[1200:],
    ]
