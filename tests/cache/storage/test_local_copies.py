"""Copies of a store's files on a local disk: right, shared, bounded, and never the reason for an error."""

import errno
import logging
import multiprocessing
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from cache.errors import IntegrityError
from cache.storage import local_copies
from cache.storage.local import LocalStorage
from cache.storage.local_copies import CopyFolder, LocalCopies
from cache.storage.open import open_storage

SIZE = 1000


class CountingStorage(LocalStorage):
    """A storage that counts the bytes that are read from it."""

    read_bytes = 0

    def read_ranges(self, ranges):  # type: ignore[no-untyped-def]
        found = super().read_ranges(ranges)
        self.read_bytes += sum(map(len, found))
        return found


@pytest.fixture
def source(tmp_path: Path) -> CountingStorage:
    """Ten files of random bytes."""
    rng, storage = np.random.default_rng(0), CountingStorage(tmp_path / "store")
    for number in range(10):
        storage.write_file(f"parts/{number}", rng.bytes(SIZE))
    return storage


def files_of(folder: Path) -> list[Path]:
    """The copies in a folder."""
    return [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]


def test_what_is_read_is_what_the_storage_has(tmp_path: Path, source: CountingStorage) -> None:
    """Whole, in pieces, beyond the end, empty, out of order and of several files; then from the copy."""
    copies = LocalCopies(source, CopyFolder(tmp_path / "copies", 1 << 30))
    ranges = [("parts/1", 0, SIZE), ("parts/2", 990, 100), ("parts/1", 5, 0), ("parts/1", 7, 3), ("parts/2", 2000, 5)]
    expected = source.read_ranges(ranges)
    for _ in range(3):
        assert copies.read_ranges(ranges) == expected
    assert str(copies) == str(source)
    before = source.read_bytes
    assert LocalCopies(source, CopyFolder(tmp_path / "copies", 1 << 30)).read_ranges(ranges) == expected
    assert source.read_bytes == before, "another process of the machine reads the same copies"


def test_a_file_in_several_pieces(tmp_path: Path, source: CountingStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    for piece in (1, 250, 333, SIZE, SIZE + 1):
        monkeypatch.setattr(local_copies, "PIECE_BYTES", piece)
        copies = LocalCopies(source, CopyFolder(tmp_path / f"copies{piece}", 1 << 30))
        assert copies.read_ranges([("parts/1", 0, SIZE)]) == [source.read("parts/1")]


def test_a_missing_file_is_that_of_the_storage(tmp_path: Path, source: CountingStorage) -> None:
    copies = LocalCopies(source, CopyFolder(tmp_path / "copies", 1 << 30))
    for name in ("parts/11", "absent"):
        with pytest.raises(IntegrityError, match=f"store/{name}: missing"):
            copies.read_ranges([(name, 0, 5)])
    with pytest.raises(IntegrityError, match="not a path inside the store"):
        copies.read_ranges([("../secret", 0, 5)])


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "longer"])
def test_a_damaged_copy_is_made_again(tmp_path: Path, source: CountingStorage, damage: str) -> None:
    """A disk that lost power or a bit: never wrong rows, and never an error that blames the store."""
    place = CopyFolder(tmp_path / "copies", 1 << 30)
    LocalCopies(source, place).read_ranges([("parts/1", 0, SIZE)])
    (copy,) = files_of(place.folder)
    data = copy.read_bytes()
    changed = {"flip": bytes([data[0] ^ 1]) + data[1:], "cut": data[:-5], "empty": b"", "longer": data + b"x"}[damage]
    copy.write_bytes(changed)
    assert LocalCopies(source, place).read_ranges([("parts/1", 0, SIZE)]) == [source.read("parts/1")]
    assert copy.read_bytes() == data


def test_the_bound_holds_and_the_oldest_give_way(tmp_path: Path, source: CountingStorage) -> None:
    """Files of two stores in one folder count together; a file that is larger than the bound is never copied."""
    place = CopyFolder(tmp_path / "copies", 4 * (SIZE + 20))
    copies = LocalCopies(source, place)
    for number in range(10):
        copies.read_ranges([(f"parts/{number}", 0, 10)])
        for age, path in enumerate(sorted(files_of(place.folder), key=lambda path: path.stat().st_mtime)):
            os.utime(path, (1000 + 10 * number + age, 1000 + 10 * number + age))
        assert sum(path.stat().st_size for path in files_of(place.folder)) <= place.max_bytes
    assert sorted(path.name for path in files_of(place.folder)) == ["6", "7", "8", "9"]
    small = LocalCopies(source, CopyFolder(tmp_path / "small", SIZE))
    assert small.read_ranges([("parts/1", 0, SIZE)]) == [source.read("parts/1")] and not files_of(tmp_path / "small")


def test_a_copy_that_is_removed_meanwhile_is_made_again(tmp_path: Path, source: CountingStorage) -> None:
    copies = LocalCopies(source, CopyFolder(tmp_path / "copies", 1 << 30))
    for _ in range(3):
        assert copies.read_ranges([("parts/1", 0, SIZE)]) == [source.read("parts/1")]
        (copy,) = files_of(tmp_path / "copies")
        copy.unlink()


def test_a_full_disk_costs_a_line_and_nothing_else(
    tmp_path: Path, source: CountingStorage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(self: LocalCopies, draft: Path, size: int) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(LocalCopies, "_reserve", full)
    copies = LocalCopies(source, CopyFolder(tmp_path / "copies", 1 << 30))
    with caplog.at_level(logging.WARNING):
        for number in range(5):
            assert copies.read_ranges([(f"parts/{number}", 0, SIZE)]) == [source.read(f"parts/{number}")]
    assert caplog.text.count("No space left on device") == 1


def test_drafts_of_killed_processes_are_removed_and_those_of_others_are_not(
    tmp_path: Path, source: CountingStorage
) -> None:
    place = CopyFolder(tmp_path / "copies", 1 << 30)
    copies = LocalCopies(source, place)
    copies.read_ranges([("parts/1", 0, 1)])
    old, new = (files_of(place.folder)[0].with_name(f".{name}") for name in ("old", "new"))
    for draft in (old, new):
        draft.write_bytes(b"x")
    os.utime(old, (1000, 1000))
    copies.read_ranges([("parts/2", 0, 1)])
    assert not old.exists() and new.exists()


def test_files_that_are_no_copies_are_never_removed(tmp_path: Path, source: CountingStorage) -> None:
    """The folder may be a disk on which others keep theirs: also old ones, hidden ones, and where there is no room."""
    others = [tmp_path / "disk" / name for name in (".profile", "results.csv", "work/0123456789abcdef/results.csv")]
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 10 * SIZE)
        os.utime(path, (1000, 1000))
    copies = LocalCopies(source, CopyFolder(tmp_path / "disk", 3 * SIZE))
    for number in range(5):
        copies.read_ranges([(f"parts/{number}", 0, 1)])
    assert all(path.stat().st_size == 10 * SIZE for path in others)
    assert len(files_of(tmp_path / "disk" / local_copies.COPIES)) == 2


def test_a_process_that_is_forked_meanwhile_keeps_no_lock(
    tmp_path: Path, source: CountingStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker of a DataLoader is forked while a part is copied, and lives on."""
    began, may_go_on = threading.Event(), threading.Event()
    inner = source.size

    def slow(name: str) -> int | None:
        began.set()
        may_go_on.wait(60)
        return inner(name)

    monkeypatch.setattr(source, "size", slow)
    copies = LocalCopies(source, CopyFolder(tmp_path / "copies", 1 << 20))
    copies.copy_ahead({"parts/1": SIZE})
    assert began.wait(60) and copies._ahead is not None
    reader, writer = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=reader.recv)
    child.start()
    may_go_on.set()
    copies._ahead.join(60)
    (copy,) = files_of(tmp_path / "copies")
    copy.unlink()
    again = threading.Thread(target=copies.read_ranges, args=([("parts/1", 0, 1)],), daemon=True)
    again.start()
    again.join(20)
    is_held = again.is_alive()
    writer.send(None)
    child.join(60)
    assert not is_held


def test_all_parts_come_ahead_if_they_fit(tmp_path: Path, source: CountingStorage) -> None:
    sizes = {f"parts/{number}": SIZE for number in range(10)}
    too_small = LocalCopies(source, CopyFolder(tmp_path / "small", 10 * SIZE))
    too_small.copy_ahead(sizes)
    copies = LocalCopies(source, CopyFolder(tmp_path / "copies", 10 * (SIZE + 20)))
    copies.copy_ahead(sizes)
    assert copies._ahead is not None and too_small._ahead is None
    copies._ahead.join(60)
    assert len(files_of(tmp_path / "copies")) == 10 and not files_of(tmp_path / "small")
    copies.close()


def read_all(folder: str, bound: int, seed: int) -> None:
    """One of several processes, with threads: reads all files many times and compares."""
    source = open_storage(f"{folder}/store")
    copies = LocalCopies(source, CopyFolder(Path(folder) / "copies", bound))
    wrong: list[str] = []

    def read(seed: int) -> None:
        for number in np.random.default_rng(seed).integers(0, 10, 60).tolist():
            if copies.read_ranges([(f"parts/{number}", 3, 900)]) != [source.read(f"parts/{number}")[3:903]]:
                wrong.append(str(number))

    threads = [threading.Thread(target=read, args=(seed * 10 + thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("room", [3, 100])
def test_processes_and_threads_share_the_copies(tmp_path: Path, source: CountingStorage, room: int) -> None:
    """Also while there is room for three of ten files only, so that copies come and go."""
    context = multiprocessing.get_context("spawn")
    bound = room * (SIZE + 20)
    processes = [context.Process(target=read_all, args=(str(tmp_path), bound, seed)) for seed in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    assert sum(path.stat().st_size for path in files_of(tmp_path / "copies")) <= bound
