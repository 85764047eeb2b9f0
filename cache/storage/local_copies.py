"""Copies of a store's files on a disk of this machine, which all its processes share, up to a number of bytes.

    FOLDER/logitbank-copies/          all copies. What else is in FOLDER is not ours, and is never removed
        STORE/NAME                    the file, and behind it its CRC-32C and a mark; STORE is a hash of the address
        STORE/.copying-N              locked by who copies one of the files that share the lock
        .room                         locked by who makes room

Files of a store are never changed in place, so a copy is right for ever. The folder may be removed at any time.
"""

import fcntl
import hashlib
import logging
import os
import struct
import threading
import time
import uuid
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import google_crc32c

from cache.errors import IntegrityError
from cache.storage.base import Range, Storage, check_name
from cache.storage.durable_files import entries_below, read_range
from cache.storage.fork_safe_lock import ForkSafeLock
from cache.storage.ranges import Span, read_merged

# In the folder of a job, which may be a whole disk with files of others.
COPIES = "logitbank-copies"
PIECE_BYTES = 32 << 20
# For the file that is being copied when all is closed.
CLOSE_SECONDS = 5.0
_TRAILER = struct.Struct("<I8s")
_MARK = b"logitcpy"
_LOCKS = 64
# Bytes that are read and dropped rather than asked for around.
_GAP = 1 << 13
# A file in use is marked so once in this time. A draft that has not grown for an hour was left by a killed process.
_TOUCH_SECONDS, _STALE_SECONDS = 60.0, 3600.0


@dataclass(frozen=True, slots=True)
class CopyFolder:
    """Where copies are, and their bytes at most."""

    folder: Path
    max_bytes: int


class LocalCopies:
    """Reads files of a storage from copies, which are made when a file is first read. See RangeReader.

    When there is no room, those that were not used for longest are removed. Where this machine's disk fails, or a file
    is larger than all copies may be, the storage itself is read. Safe to share between threads and processes.
    """

    def __init__(self, source: Storage, place: CopyFolder) -> None:
        self._source, self._place = source, place
        self._root = place.folder / COPIES
        self._folder = self._root / hashlib.sha256(str(source).encode()).hexdigest()[:16]
        # Files that this process has checked, and when it last marked them as used.
        self._checked: dict[str, float] = {}
        self._lock = ForkSafeLock()
        self._has_warned = False
        self._is_closed = threading.Event()
        self._ahead: threading.Thread | None = None

    def __str__(self) -> str:
        return str(self._source)

    def read_ranges(self, ranges: Sequence[Range]) -> list[bytes]:
        """See RangeReader. Raises what the storage raises."""
        results: list[bytes] = [b""] * len(ranges)
        places: dict[str, list[int]] = {}
        for place, (name, _, _) in enumerate(ranges):
            places.setdefault(name, []).append(place)
        for name, mine in places.items():
            spans = [ranges[place][1:] for place in mine]
            data = self._read_copy(check_name(name, self), spans)
            if data is None:
                data = self._source.read_ranges([(name, *span) for span in spans])
            for place, piece in zip(mine, data, strict=True):
                results[place] = piece
        return results

    def copy_ahead(self, sizes: dict[str, int]) -> None:
        """Copy these files in the background, if there is room for all of them. sizes: bytes by name.

        One process of a machine does it for all.
        """
        if self._ahead is None and sum(sizes.values()) + _TRAILER.size * len(sizes) <= self._place.max_bytes:
            self._is_closed.clear()
            self._ahead = threading.Thread(target=self._copy_all, args=(list(sizes),), name="copies", daemon=True)
            self._ahead.start()

    def close(self) -> None:
        """Copy nothing more ahead."""
        ahead, self._ahead = self._ahead, None
        self._is_closed.set()
        if ahead is not None:
            ahead.join(CLOSE_SECONDS)

    def _copy_all(self, names: Sequence[str]) -> None:
        try:
            with self._locked(self._folder / ".ahead", wait=False) as is_mine:
                for name in names if is_mine else ():
                    if self._is_closed.is_set():
                        return
                    if not self._path(name).exists():
                        self._copy(name)
        except (OSError, IntegrityError) as error:
            self._warn(error)
        except Exception as error:  # of the storage: who needs the file reads it, and raises
            logging.getLogger(__name__).warning("%s; files are copied when they are read", error)

    def _read_copy(self, name: str, spans: list[Span]) -> list[bytes] | None:
        """Bytes of a copy, which is made now if there is none. None if there can be none."""
        for _ in range(2):
            try:
                with self._path(name).open("rb", buffering=0) as file:
                    handle, length = file.fileno(), os.fstat(file.fileno()).st_size - _TRAILER.size
                    if not self._is_intact(name, handle, length):
                        self._path(name).unlink(missing_ok=True)
                        continue
                    return _read(handle, [(start, max(0, min(size, length - start))) for start, size in spans])
            except FileNotFoundError:
                pass
            except OSError as error:
                self._warn(error)
                return None
            try:
                if not self._copy(name):
                    return None
            except OSError as error:
                self._warn(error)
                return None
        return None

    def _is_intact(self, name: str, handle: int, length: int) -> bool:
        """Whether a copy is whole. This process looks once; later it only marks the copy as used."""
        now = time.monotonic()
        with self._lock:
            touched = self._checked.get(name)
        if touched is not None and now - touched < _TOUCH_SECONDS:
            return length >= 0
        if touched is None:
            if length < 0:
                return False
            checksum = 0
            for start in range(0, length, PIECE_BYTES):
                checksum = google_crc32c.extend(checksum, read_range(handle, start, min(PIECE_BYTES, length - start)))
            if read_range(handle, length, _TRAILER.size) != _TRAILER.pack(checksum, _MARK):
                return False
        with suppress(OSError):
            os.utime(handle)
        with self._lock:
            self._checked[name] = now
        return True

    def _copy(self, name: str) -> bool:
        """Copy a file, unless another thread or process does. Returns whether there is a copy then.

        Raises OSError if this machine's disk fails, and what the storage raises.
        """
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._locked(self._folder / f".copying-{zlib.crc32(name.encode()) % _LOCKS}"):
            if path.exists():
                return True
            with self._lock:
                self._checked.pop(name, None)
            draft = path.with_name(f".{uuid.uuid4().hex}")
            try:
                return self._fill(name, draft, path)
            finally:
                draft.unlink(missing_ok=True)

    def _fill(self, name: str, draft: Path, path: Path) -> bool:
        """Write a copy and give it its name. Returns False if it is larger than all copies may be."""
        size, checksum = self._source.size(name), 0
        if size is None:
            raise IntegrityError(f"{self._source}/{name}: missing")
        if size + _TRAILER.size > self._place.max_bytes or not self._reserve(draft, size):
            return False
        with draft.open("r+b") as file:
            for start in range(0, size, PIECE_BYTES):
                (piece,) = self._source.read_ranges([(name, start, min(PIECE_BYTES, size - start))])
                file.write(piece)
                checksum = google_crc32c.extend(checksum, piece)
            file.write(_TRAILER.pack(checksum, _MARK))
        draft.replace(path)
        return True

    def _reserve(self, draft: Path, size: int) -> bool:
        """Make a draft of so many bytes, and room for it: copies that were not used for longest are removed.

        Returns False if other drafts take the room.
        """
        with self._locked(self._root / ".room"):
            found = []
            for entry in entries_below(self._root):
                with suppress(FileNotFoundError):
                    if entry.is_file(follow_symlinks=False):
                        status = entry.stat()
                        found.append((status.st_mtime, status.st_size, Path(entry.path)))
            total, now = size + _TRAILER.size + sum(length for _, length, _ in found), time.time()
            for changed, length, path in sorted(found):
                is_draft = path.name.startswith(".")
                is_left_behind = is_draft and length > 0 and now - changed > _STALE_SECONDS
                if is_left_behind or (not is_draft and total > self._place.max_bytes):
                    path.unlink(missing_ok=True)
                    total -= length
            if total > self._place.max_bytes:
                return False
            with draft.open("wb") as file:
                file.truncate(size)
            return True

    def _path(self, name: str) -> Path:
        return self._folder / name

    @contextmanager
    def _locked(self, path: Path, wait: bool = True) -> Iterator[bool]:
        """Hold a lock. Yields False, without `wait`, if another one has it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            try:
                yield True
            finally:  # a process that was forked meanwhile has the file open as well, and would keep the lock
                fcntl.flock(file, fcntl.LOCK_UN)

    def _warn(self, error: Exception) -> None:
        """Say once that copies cannot be used."""
        if not self._has_warned:
            self._has_warned = True
            logging.getLogger(__name__).warning(
                "copies in %s cannot be used (%s); %s itself is read", self._place.folder, error, self._source
            )


def _read(handle: int, spans: list[Span]) -> list[bytes]:
    return read_merged(spans, _GAP, lambda runs: [read_range(handle, *run) for run in runs])
