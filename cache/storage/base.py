"""The protocol of a storage: files by relative name. All other rooms access files through it alone."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from cache.errors import IntegrityError, StoreError

# A range of a file: name, first byte, number of bytes.
Range = tuple[str, int, int]


class NotCreatedError(StoreError):
    """The file of a `create` certainly does not exist. After any other error it may, now or later."""


class RangeReader(Protocol):
    """Gives bytes of files."""

    def __str__(self) -> str: ...

    def read_ranges(self, ranges: Sequence[Range]) -> list[bytes]:
        """The bytes of each range, fewer if the file ends before. Raises IntegrityError if a file is missing."""
        ...


class Storage(RangeReader, Protocol):
    """Files by name. Names are relative, with "/"; a name outside the store raises IntegrityError.

    Files are never changed in place. `create` is atomic: of several concurrent writers exactly one succeeds.
    """

    def read(self, name: str) -> bytes:
        """The content of a file. Raises IntegrityError if it is missing."""
        ...

    def size(self, name: str) -> int | None:
        """Length of a file in bytes, or None if there is no such file."""
        ...

    def names(self, folder: str, suffix: str = "") -> list[str]:
        """Sorted names of the files and folders directly in `folder`, without unfinished writes."""
        ...

    def drafts(self) -> list[str]:
        """Names of files that unfinished writes left behind."""
        ...

    def walk(self, folder: str) -> Iterator[str]:
        """Sorted names of all files below `folder`; the name itself if it is a file."""
        ...

    def total_bytes(self) -> int:
        """Bytes of all files of the store, also of those that nothing refers to."""
        ...

    def create(self, name: str, data: bytes) -> bool:
        """Create a file with `data`, durably, unless it exists. Returns whether this call created it.

        Raises NotCreatedError if that failed for certain, and StoreError if it is unknown whether the file exists.
        """
        ...

    def write_folder(self, folder: str, files: Mapping[str, bytes]) -> None:
        """Write the files of a folder that no other writer uses. Returns when all are durable."""
        ...

    def write_file(self, name: str, data: bytes) -> None:
        """Write a file that no other writer uses. Returns when it is durable; until then a part of it may exist.

        What is read afterwards comes from the storage, not from what this machine keeps in memory, as far as the system
        allows.
        """
        ...

    def remove_folder(self, folder: str) -> None:
        """Remove a folder with everything below it, or a file, if it exists."""
        ...

    def changed(self, name: str) -> float:
        """Time of the last change of a file, in seconds by the clock of the storage; 0 if there is no such file."""
        ...

    def age(self, folder: str) -> float:
        """Seconds since the last change of a file, or of any file below a folder, by the clock of the storage.

        0 if there is no file.
        """
        ...

    def close(self) -> None:
        """Close open files and connections. Later calls open them again."""
        ...


def check_name(name: str, store: object) -> str:
    """Return the name. Raises IntegrityError if it could lead outside the store."""
    parts = name.split("/")
    if (
        not name
        or name.startswith("/")
        or "\\" in name
        or "\0" in name
        or any(part in ("", ".", "..") for part in parts)
    ):
        raise IntegrityError(f"{name!r} is not a path inside the store {store}")
    return name
