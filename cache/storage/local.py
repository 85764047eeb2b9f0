"""A store in a folder of a local or shared POSIX file system."""

import os
import shutil
import stat
import threading
import uuid
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from cache.errors import IntegrityError, StoreError
from cache.storage.base import Range, check_name

# Open files that are cached.
MAX_OPEN_FILES = 256


class LocalStorage:
    """A store in a folder of a local or shared POSIX file system that supports hard links.

    Safe to share between threads and across fork. Caches up to MAX_OPEN_FILES open files.
    """

    creates_late = False

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._files: OrderedDict[str, BinaryIO] = OrderedDict()
        self._lock = threading.Lock()
        _STORAGES.add(self)

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
        try:
            return self.path(name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise IntegrityError(f"{self.root / name}: missing") from None
        except OSError as error:
            raise StoreError(f"{self.root / name}: cannot be read: {error.strerror}") from error

    def read_ranges(self, ranges: Sequence[Range]) -> list[bytes]:
        pieces = []
        for name, start, length in ranges:
            file = self._open_file(name)
            try:
                pieces.append(_read_range(file.fileno(), start, length))
            except OSError as error:
                raise StoreError(f"{self.root / name}: cannot be read: {error.strerror}") from error
        return pieces

    def size(self, name: str) -> int | None:
        try:
            status = self.path(name).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StoreError(f"{self.root / name}: cannot be read: {error.strerror}") from error
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def names(self, folder: str, suffix: str = "") -> list[str]:
        try:
            names = [entry.name for entry in os.scandir(self.path(folder))]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise StoreError(f"{self.root / folder}: cannot be listed: {error.strerror}") from error
        return sorted(name for name in names if name.endswith(suffix) and not name.startswith("."))

    def drafts(self) -> list[str]:
        return [str(path.relative_to(self.root)) for path in sorted(self.root.rglob(".*")) if path.is_file()]

    def walk(self, folder: str) -> Iterator[str]:
        base = self.path(folder)
        for path in sorted(base.rglob("*")) if base.is_dir() else [base]:
            if path.is_file():
                yield str(path.relative_to(self.root))

    def create(self, name: str, data: bytes) -> bool:
        # link() is atomic and never replaces a file, so exactly one of several concurrent writers wins, also on NFS.
        target = self.path(name)
        draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        with _write_errors(target):
            _make_folder(target.parent)
            try:
                _write_file(draft, data)
                try:
                    os.link(draft, target)
                except FileExistsError:
                    # NFS sends a request again when its answer was lost, and then meets its own link.
                    if not draft.samefile(target):
                        return False
                _sync_folder(target.parent)
                if target.parent != self.root:
                    _sync_folder(self.root)  # another writer may have made target.parent and not synced it yet
                return True
            finally:
                draft.unlink(missing_ok=True)

    def write_folder(self, folder: str, files: Mapping[str, bytes]) -> None:
        top = self.path(folder)
        with _write_errors(top):
            _make_folder(top)
            # Also those that exist: another writer may have made them and not synced them yet.
            folders = {top, *(parent for parent in top.parents if parent.is_relative_to(self.root))}
            for name, data in files.items():
                path = top / check_name(name, self)
                path.parent.mkdir(parents=True, exist_ok=True)
                folders.update(parent for parent in path.parents if parent.is_relative_to(top))
                _write_file(path, data)
            for changed in folders:
                _sync_folder(changed)

    def remove_folder(self, folder: str) -> None:
        path = self.path(folder)
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def age(self, folder: str) -> float:
        top = self.path(folder)
        times = [path.stat().st_mtime for path in (top, *top.rglob("*")) if path.exists()]
        if not times:
            return 0.0
        # Use the clock of the file system: on a shared one it may differ from this machine's.
        probe = self.root / f".clock.{uuid.uuid4().hex}"
        with _write_errors(probe):
            probe.touch()
            now = probe.stat().st_mtime
            probe.unlink()
        return now - max(times)

    def close(self) -> None:
        with self._lock:
            files, self._files = self._files, OrderedDict()
        files.clear()

    def _open_file(self, name: str) -> BinaryIO:
        """An open file, from the cache if possible. It is closed when the cache and all readers have dropped it."""
        with self._lock:
            file = self._files.get(name)
            if file is not None:
                self._files.move_to_end(name)
                return file
        try:
            file = self.path(name).open("rb", buffering=0)
        except (FileNotFoundError, NotADirectoryError):
            raise IntegrityError(f"{self.root / name}: missing") from None
        except OSError as error:
            raise StoreError(f"{self.root / name}: cannot be read: {error.strerror}") from error
        dropped = []
        with self._lock:
            self._files[name] = file
            while len(self._files) > MAX_OPEN_FILES:
                dropped.append(self._files.popitem(last=False))
        return file  # `dropped` is closed here, without the lock


# After a fork, the child has a copy of a lock that a thread of the parent may hold, and nobody releases it. The open
# files stay usable: pread has no position that the processes would share.
_STORAGES: "weakref.WeakSet[LocalStorage]" = weakref.WeakSet()


def _renew_locks() -> None:
    for storage in _STORAGES:
        storage._lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_locks)


def _read_range(handle: int, start: int, length: int) -> bytes:
    """Up to `length` bytes from `start`. One call of pread returns at most 2,147,479,552 bytes on Linux."""
    piece = os.pread(handle, length, start)
    if len(piece) == length or not piece:
        return piece
    pieces = [piece]
    while piece:
        start, length = start + len(piece), length - len(piece)
        piece = os.pread(handle, length, start)
        pieces.append(piece)
    return b"".join(pieces)


@contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of writing (disk full, read-only, no permission) into a StoreError with the path."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}") from error


def _make_folder(path: Path) -> None:
    """Make a folder and those above it, durably."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _write_file(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
