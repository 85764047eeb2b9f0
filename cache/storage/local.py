"""A store in a folder of a local or shared POSIX file system."""

import errno
import os
import shutil
import stat
import uuid
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from cache.storage.base import NotCreatedError, Range, check_name
from cache.storage.durable_files import (
    entries_below,
    make_folder,
    read_range,
    store_error,
    store_errors,
    sync_folder,
    write_file,
)
from cache.storage.fork_safe_lock import ForkSafeLock
from cache.storage.ranges import Span, read_merged

# Bytes that are read and dropped rather than asked for around.
MERGED_GAP = 1 << 13
# Open files that are cached.
MAX_OPEN_FILES = 256
# Answers to link() after which the file does not exist, and will not.
_NOT_LINKED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOENT)
# Answers to link() of a file system that has no hard links.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class LocalStorage:
    """A store in a folder of a local or shared POSIX file system that supports hard links.

    Safe to share between threads and across fork. Caches up to MAX_OPEN_FILES open files.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).absolute()  # another process, or this one later, may have another current folder
        self._files: OrderedDict[str, BinaryIO] = OrderedDict()
        self._durable: set[Path] = set()  # folders in the root whose names are
        self._lock = ForkSafeLock()

    def __getstate__(self) -> Path:
        return self.root

    def __setstate__(self, root: Path) -> None:
        self.__init__(root)  # type: ignore[misc]

    def __str__(self) -> str:
        return str(self.root)

    def path(self, name: str) -> Path:
        """Path of a file. Raises IntegrityError if the name could lead outside the store."""
        return self.root / check_name(name, self)

    def read(self, name: str) -> bytes:
        path = self.path(name)
        with store_errors(path, "read"):
            try:
                return path.read_bytes()
            except OSError as error:
                if error.errno != errno.ESTALE:
                    raise
                return path.read_bytes()  # the name was looked up in a cache of the network file system

    def read_ranges(self, ranges: Sequence[Range]) -> list[bytes]:
        spans: dict[str, list[Span]] = {}
        for name, start, length in ranges:
            spans.setdefault(name, []).append((start, length))
        found = {name: iter(self._read_spans(name, each)) for name, each in spans.items()}
        return [next(found[name]) for name, *_ in ranges]

    def size(self, name: str) -> int | None:
        path = self.path(name)
        with store_errors(path, "read"):
            try:
                status = path.stat()
            except (FileNotFoundError, NotADirectoryError):
                return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def names(self, folder: str, suffix: str = "") -> list[str]:
        path = self.path(folder)
        with store_errors(path, "listed"):
            try:
                names = [entry.name for entry in os.scandir(path)]
            except (FileNotFoundError, NotADirectoryError):
                return []
        return sorted([name for name in names if name.endswith(suffix) and name[0] != "."])  # there may be a million

    def drafts(self) -> list[str]:
        with store_errors(self.root, "listed"):
            files = [entry for entry in entries_below(self.root) if entry.is_file()]
            return sorted(os.path.relpath(file.path, self.root) for file in files if file.name.startswith("."))

    def walk(self, folder: str) -> Iterator[str]:
        path = self.path(folder)
        with store_errors(path, "listed"):
            names = [os.path.relpath(entry.path, self.root) for entry in entries_below(path) if entry.is_file()]
        yield from sorted(names) if names or not path.is_file() else [folder]

    def total_bytes(self) -> int:
        with store_errors(self.root, "listed"):
            return sum(_size_or_0(entry) for entry in entries_below(self.root) if entry.is_file())

    def create(self, name: str, data: bytes) -> bool:
        # link() is atomic and never replaces a file, so exactly one of several concurrent writers wins, also on NFS.
        target = self.path(name)
        draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        with store_errors(target, "written"):
            try:
                with store_errors(target, "written", NotCreatedError):
                    made = make_folder(target.parent)
                    write_file(draft, data)
                if not self._link(draft, target):
                    return False
                self._sync_names(target.parent, made)
                return True
            finally:
                draft.unlink(missing_ok=True)

    def _link(self, draft: Path, target: Path) -> bool:
        """Give a file its final name. Returns False if there is such a file already."""
        try:
            os.link(draft, target)
        except FileExistsError:
            # NFS sends a request again when its answer was lost, and then meets its own link.
            return draft.samefile(target)
        except OSError as error:
            if error.errno in _NO_LINKS:
                raise NotCreatedError(
                    f"{target}: cannot be written: {error.strerror}: this file system has no hard links, with which "
                    "writers claim a file; put the store on another file system or in an object store"
                ) from error
            if error.errno in _NOT_LINKED and not target.exists():
                raise NotCreatedError(f"{target}: cannot be written: {error.strerror}") from error
            raise
        return True

    def write_file(self, name: str, data: bytes) -> None:
        path = self.path(name)
        with store_errors(path, "written"):
            made = make_folder(path.parent)
            write_file(path, data, forget=True)
            self._sync_names(path.parent, made)

    def _sync_names(self, folder: Path, made: Collection[Path]) -> None:
        """Make the names in a folder durable, and its own name. made: folders that were just made, and are durable.

        Others may have been made by another writer that has not synced them yet. Folders directly in the store are
        never removed, so each is synced once.
        """
        sync_folder(folder)
        while folder != self.root:
            if folder not in made and folder not in self._durable:
                sync_folder(folder.parent)
            if folder.parent == self.root:
                self._durable.add(folder)
            folder = folder.parent

    def write_folder(self, folder: str, files: Mapping[str, bytes]) -> None:
        top = self.path(folder)
        with store_errors(top, "written"):
            make_folder(top)
            # Also those that exist: another writer may have made them and not synced them yet.
            folders = {top, *(parent for parent in top.parents if parent.is_relative_to(self.root))}
            for name, data in files.items():
                path = top / check_name(name, self)
                path.parent.mkdir(parents=True, exist_ok=True)
                folders.update(parent for parent in path.parents if parent.is_relative_to(top))
                write_file(path, data)
            for changed in folders:
                sync_folder(changed)

    def remove_folder(self, folder: str) -> None:
        path = self.path(folder)
        with store_errors(path, "removed"):
            while path.is_dir():
                try:
                    shutil.rmtree(path)
                except FileNotFoundError:  # another process removes it too
                    continue
            path.unlink(missing_ok=True)

    def changed(self, name: str) -> float:
        path = self.path(name)
        with store_errors(path, "read"):
            try:
                return path.stat().st_mtime
            except (FileNotFoundError, NotADirectoryError):
                return 0.0

    def age(self, folder: str) -> float:
        top = self.path(folder)
        times = []
        with store_errors(top, "read"):
            for path in (top, *(Path(entry.path) for entry in entries_below(top))):
                try:
                    times.append(path.stat().st_mtime)
                except (FileNotFoundError, NotADirectoryError):
                    continue
        if not times:
            return 0.0
        # Use the clock of the file system: on a shared one it may differ from this machine's.
        probe = self.root / f".clock.{uuid.uuid4().hex}"
        with store_errors(probe, "written"):
            probe.touch()
            now = probe.stat().st_mtime
            probe.unlink()
        return now - max(times)

    def close(self) -> None:
        with self._lock:
            files, self._files = self._files, OrderedDict()
        files.clear()

    def _read_spans(self, name: str, spans: Sequence[Span]) -> list[bytes]:
        """Ranges of one file."""
        try:
            file = self._open_file(name)  # kept while it is read: another thread may drop it from the cache
            try:
                return _read_file(file, spans)
            except OSError as error:
                if error.errno != errno.ESTALE:
                    raise
            # A network file system forgot the open file. The name may still lead to it.
            with self._lock:
                self._files.pop(name, None)
            return _read_file(self._open_file(name), spans)
        except OSError as error:
            raise store_error(self.root / name, "read", error) from error

    def _open_file(self, name: str) -> BinaryIO:
        """An open file, from the cache if possible. It is closed when the cache and all readers have dropped it."""
        with self._lock:
            file = self._files.get(name)
            if file is not None:
                self._files.move_to_end(name)
                return file
        file = self.path(name).open("rb", buffering=0)
        dropped = []
        with self._lock:
            self._files[name] = file
            while len(self._files) > MAX_OPEN_FILES:
                dropped.append(self._files.popitem(last=False))
        return file  # `dropped` is closed here, without the lock


def _read_file(file: BinaryIO, spans: Sequence[Span]) -> list[bytes]:
    handle = file.fileno()
    return read_merged(spans, MERGED_GAP, lambda runs: [read_range(handle, *run) for run in runs])


def _size_or_0(entry: "os.DirEntry[str]") -> int:
    """Bytes of a file, or 0 if it was removed meanwhile."""
    try:
        return entry.stat().st_size
    except FileNotFoundError:
        return 0
