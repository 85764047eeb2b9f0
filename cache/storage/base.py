"""The protocol of a storage: files by relative name. Everything above speaks to it and to nothing else."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from cache.errors import IntegrityError

# A range of a file: name, first byte, number of bytes.
Range = tuple[str, int, int]


class Storage(Protocol):
    """Files by name. Names are relative, with "/"; a name that leaves the store raises IntegrityError.

    Nothing is ever changed in place. `create` is atomic: of several racing writers exactly one succeeds.
    """

    def __str__(self) -> str: ...

    def read(self, name: str) -> bytes:
        """The whole file. Raises IntegrityError where it is missing."""
        ...

    def read_ranges(self, ranges: Sequence[Range]) -> list[bytes]:
        """The bytes of each range, fewer where the file ends early. Raises IntegrityError where a file is missing."""
        ...

    def size(self, name: str) -> int | None:
        """Length in bytes, or None where there is no such file."""
        ...

    def names(self, folder: str, suffix: str = "") -> list[str]:
        """Sorted names of the files and folders directly in `folder`, unfinished writes left out."""
        ...

    def drafts(self) -> list[str]:
        """Names of files that unfinished writes left, where the storage has any."""
        ...

    def walk(self, folder: str) -> Iterator[str]:
        """Names of all files below `folder`, sorted; of the file itself where it is one."""
        ...

    def create(self, name: str, data: bytes) -> bool:
        """Create the file durably with all of `data` unless it exists. True if this call created it."""
        ...

    def write_folder(self, folder: str, files: Mapping[str, bytes]) -> None:
        """Write the files of a folder that no other writer knows of, and return when all are durable."""
        ...

    def remove_folder(self, folder: str) -> None:
        """Remove `folder` with all that is below it, or a file; nothing happens where there is nothing."""
        ...

    def age(self, folder: str) -> float:
        """Seconds since the newest change of a file, or below a folder, by the storage's own clock; 0 without any."""
        ...


def check_name(name: str, store: object) -> str:
    """The name. Raises IntegrityError unless it stays inside the store."""
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
