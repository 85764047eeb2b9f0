"""Every point at which a write can fail leaves what was committed, and a rerun completes the rest."""

import errno
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cache.errors import LogitbankError, StoreError
from cache.rows.record import Record
from cache.storage import durable_files
from cache.storage.local import LocalStorage
from cache.store import unit_writer
from cache.store.claims.codebook_claim import claim_path
from cache.store.commits import Commit, committed_units, create_store, read_commit
from cache.store.quarantine.entries import quarantine_example
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from cache.store.upkeep.garbage_collection import collect_garbage
from cache.store.verify import verify_store
from tests.cache.rows.rows import TARGETS, store_spec
from tests.cache.store.damage import contents, units_of

CALLS = ("link", "fsync", "mkdir", "unlink")
ERRORS = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ESTALE)
SPEC = store_spec(TARGETS["topk"])
KEY = "0" * 32


@contextmanager
def failing_call(number: int, works_first: bool) -> Iterator[list[str]]:
    """Within, one of the calls of CALLS raises an error, after or instead of its work. Yields what all calls are."""
    calls: list[str] = []
    # Without the time that a disk takes: no machine loses its power here.
    originals = {**{name: getattr(os, name) for name in CALLS}, "fsync": lambda handle: None}

    def wrap(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            place = Path(f"/proc/self/fd/{arguments[0]}").readlink() if name == "fsync" else arguments[name == "link"]
            calls.append(f"{name} {kind_of(str(place))}")
            fails = len(calls) == number
            result = original(*arguments, **options) if works_first or not fails else None
            if fails:
                error = ERRORS[number % len(ERRORS)]
                raise OSError(error, os.strerror(error))
            return result

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name, original in originals.items():
            patch.setattr(os, name, wrap(name, original))
        yield calls


def kind_of(path: str) -> str:
    """A path without random names."""
    return re.sub(r"[0-9a-f]{24,64}", "#", path.rpartition("/run/")[2].partition("/")[2])


def points(calls: list[str]) -> list[int]:
    """Numbers of the calls that fail in turn: of each kind the first, the last and one between; all if it is set."""
    if os.environ.get("LOGITBANK_FAULTS") == "all":
        return list(range(1, len(calls) + 1))
    places: dict[str, list[int]] = {}
    for number, kind in enumerate(calls, start=1):
        places.setdefault(kind, []).append(number)
    return sorted({n for numbers in places.values() for n in (numbers[0], numbers[len(numbers) // 2], numbers[-1])})


def capture(storage: LocalStorage, unit: list[Record]) -> None:
    """All that writes to a store: the spec, the codebook if there is none, a unit, quarantine, a snapshot."""
    create_store(storage, SPEC)
    write_unit(storage, SPEC, unit)
    quarantine_example(storage, KEY, "bad", "too long")
    take_snapshot(storage)


@pytest.mark.slow
@pytest.mark.parametrize("works_first", [True, False], ids=["after its work", "instead of its work"])
@pytest.mark.parametrize("is_first_unit", [True, False], ids=["first unit, with its codebook", "second unit"])
def test_no_failing_call_loses_a_commit(tmp_path: Path, works_first: bool, is_first_unit: bool) -> None:
    """Would catch an error after the commit that removes the committed part."""
    first, second = units_of("topk", 2)
    before = tmp_path / "before"
    before.mkdir()
    capture(LocalStorage(tmp_path / "warm"), first)  # kernels that are compiled now write files, too
    if not is_first_unit:
        capture(LocalStorage(before), first)
    expected = {record.key for record in (second if is_first_unit else first + second)}

    def run(number: int) -> tuple[list[str], str]:
        """Capture with a failing call, check, and capture again. Returns the calls and the message."""
        storage = LocalStorage(shutil.copytree(before, tmp_path / "run" / str(number)))
        message = ""
        with failing_call(number, works_first) as calls:
            try:
                capture(storage, second)
            except LogitbankError as error:
                message = str(error)
        for unit in committed_units(storage):
            commit = read_commit(storage, unit)[0]
            assert storage.size(commit.part.path) == commit.part.bytes, calls[number - 1]
        with failing_call(0, works_first):
            capture(storage, second)
        assert {record.key for record in contents(storage)} == expected
        shutil.rmtree(storage.root)
        return calls, message

    calls, _ = run(0)
    refused = 0
    numbers = points(calls)
    for number in numbers:
        failed, message = run(number)
        assert len(failed) >= number
        if message:
            refused += 1
            assert os.strerror(ERRORS[number % len(ERRORS)]) in message and "\n" not in message, message
    assert len(numbers) > 20 and refused > 20


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT], ids=errno.errorcode.get)
def test_a_commit_that_finds_no_space_leaves_nothing(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even in the last step of all: the link of the commit, which needs a place in its folder."""
    storage = LocalStorage(tmp_path / "store")
    first, second = units_of("topk", 2)
    capture(storage, first)
    before = sorted(path for path in storage.root.rglob("*") if path.is_file())

    def full(source: Any, target: Any) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", full)
        with pytest.raises(StoreError, match=f"commits/.*: cannot be written: {os.strerror(number)}$"):
            write_unit(storage, SPEC, second)
    assert sorted(path for path in storage.root.rglob("*") if path.is_file()) == before


def test_a_part_whose_commit_may_exist_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network file system that reports an error may link all the same, later."""
    storage = LocalStorage(tmp_path / "store")
    create_store(storage, SPEC)
    (unit,) = units_of("topk", 1)
    pending: list[tuple[bytes, Path]] = []

    def links_later(source: Any, target: Any) -> None:
        if "commits" not in str(target):
            LINK(source, target)
            return
        pending.append((Path(source).read_bytes(), Path(target)))
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", links_later)
        with pytest.raises(StoreError, match="cannot be written: Input/output error"):
            write_unit(storage, SPEC, unit)
    ((data, target),) = pending
    target.write_bytes(data)
    take_snapshot(storage)
    assert len(contents(storage)) == 3 and not verify_store(str(storage)).problems


def test_a_codebook_that_was_removed_before_its_claim_is_withdrawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim of a codebook that is gone would stop every later writer and reader."""
    storage = LocalStorage(tmp_path / "store")
    create_store(storage, SPEC)
    (unit,) = units_of("topk", 1)
    create = LocalStorage.create

    def collect_and_create(self: LocalStorage, name: str, data: bytes) -> bool:
        if name == claim_path(1):
            assert len(collect_garbage(LocalStorage(self.root), grace=-1.0).removed) == 1
        return create(self, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "create", collect_and_create)
        with pytest.raises(StoreError, match=r"removed before codebooks/1\.json was written.*run the job again"):
            write_unit(storage, SPEC, unit)
    assert storage.size(claim_path(1)) is None
    assert write_unit(storage, SPEC, unit)[1]
    take_snapshot(storage)
    assert len(contents(storage)) == 3


def test_a_commit_made_while_its_part_is_removed_is_withdrawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the writer, which looks for its files, and the collection, which looks for the commit, one sees the other."""
    storage = LocalStorage(tmp_path / "store")
    create_store(storage, SPEC)
    first, second = units_of("topk", 2)
    write_unit(storage, SPEC, first)
    publish, remove = unit_writer.publish_commit, LocalStorage.remove_folder

    def collect_before_and_remove_after(target: LocalStorage, commit: Commit) -> bool:
        def remove_late(self: LocalStorage, folder: str) -> None:
            assert publish(LocalStorage(storage.root), commit), "the commit comes after the collection looked for it"
            monkeypatch.setattr(LocalStorage, "remove_folder", remove)
            remove(self, folder)

        monkeypatch.setattr(LocalStorage, "remove_folder", remove_late)
        report = collect_garbage(LocalStorage(storage.root), grace=-1.0)
        assert report.removed == [commit.part.path] and report.withdrawn == [f"commits/{commit.unit}.json"]
        return True

    with monkeypatch.context() as patch:
        patch.setattr(unit_writer, "publish_commit", collect_before_and_remove_after)
        with pytest.raises(StoreError, match="run the job again"):
            write_unit(storage, SPEC, second)
    assert len(committed_units(storage)) == 1 and write_unit(storage, SPEC, second)[1]
    take_snapshot(storage)
    assert len(contents(storage)) == 6


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
    while sum(any(storage.walk(f"parts/{unit}")) for unit in storage.names("parts")) < 2:
        pass
    monkeypatch.setattr(LocalStorage, "age", commit_and_age)
    assert not collect_garbage(storage, grace=-1.0).removed
    assert not writer.is_alive()
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
    above = [] if has_folders else [tmp_path, tmp_path / "runs"]
    folders = [*above, root, root / "parts", part.parent, root / "codebooks"]
    assert [path for path in (part, *folders) if str(path) not in synced] == []
    books = [path for path in synced if path.startswith(f"{root}/codebooks/.")]
    assert len(books) == 2, "the codebook and its claim"
    drafts = [path for path in synced if path.startswith(str(root / "commits" / f".{commit.unit}"))]
    assert len(drafts) == 1, "the commit's own bytes"
    after = [path for kind, path in events[linked:] if kind == "fsync"]
    assert str(root / "commits") in after and str(root) in [path for kind, path in events if kind == "fsync"]


def test_a_unit_is_made_durable_with_few_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call can take as long as a turn of a disk: the file and its two folders, the commit and its folder."""
    storage = LocalStorage(tmp_path / "store")
    create_store(storage, SPEC)
    first, second = units_of("topk", 2)
    write_unit(storage, SPEC, first)
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(str(Path(f"/proc/self/fd/{handle}").readlink())))
    commit, _ = write_unit(storage, SPEC, second)
    part = storage.root / commit.part.path
    names = [re.sub(r"/\.[^/]*$", "/draft", name) for name in synced]
    commits = storage.root / "commits"
    assert names == [str(part.parent.parent), str(part), str(part.parent), str(commits / "draft"), str(commits)]


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
