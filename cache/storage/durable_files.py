"""Files and folders of a POSIX file system that outlast a loss of power, and errors of the system in one line."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cache.errors import IntegrityError, StoreError

# Bytes of one call, at most.
READ_BYTES = 1 << 30
# What a file system answers that cannot sync a folder. There is then no other way to make a name durable.
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP)


@contextmanager
def store_errors(path: Path, action: str, kind: type[StoreError] = StoreError) -> Iterator[None]:
    """Turn an OSError into one line with the path: an IntegrityError if a file to read is missing, otherwise `kind`."""
    try:
        yield
    except OSError as error:
        raise store_error(path, action, error, kind) from error


def store_error(path: Path, action: str, error: OSError, kind: type[StoreError] = StoreError) -> StoreError:
    """The error of store_errors for an error of the system."""
    if action == "read" and isinstance(error, FileNotFoundError | NotADirectoryError):
        return IntegrityError(f"{path}: missing")
    return kind(f"{path}: cannot be {action}: {error.strerror or error}")


def make_folder(path: Path) -> list[Path]:
    """Make a folder and those above it, durably. Returns those that were missing."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)
    return missing


def write_file(path: Path, data: bytes, forget: bool = False) -> None:
    """Write a new file. An error of fsync or of close, where network file systems report theirs, is raised.

    forget: ask the system to drop its copy in memory, so that the next read comes from the device. It may refuse.
    """
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        if forget and hasattr(os, "posix_fadvise"):
            with suppress(OSError):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(handle)


def read_range(handle: int, start: int, length: int) -> bytes:
    """Up to `length` bytes from `start`. One call of pread returns at most 2,147,479,552 bytes on Linux.

    It allocates what it is asked for, however long the file is.
    """
    piece = os.pread(handle, min(length, READ_BYTES), start)
    if len(piece) == length or not piece:
        return piece
    pieces = [piece]
    while piece:
        start, length = start + len(piece), length - len(piece)
        piece = os.pread(handle, min(length, READ_BYTES), start)
        pieces.append(piece)
    return b"".join(pieces)


def entries_below(folder: Path) -> "Iterator[os.DirEntry[str]]":
    """All files and folders below a folder. Those that are removed meanwhile are left out."""
    try:
        with os.scandir(folder) as entries:
            found = list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in found:
        yield entry
        if entry.is_dir(follow_symlinks=False):
            yield from entries_below(Path(entry.path))
