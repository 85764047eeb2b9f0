"""One file that was read as a whole, for a reader of ranges."""

from collections.abc import Sequence

from cache.errors import IntegrityError
from cache.storage.base import Range


class MemoryFile:
    """The file `name` of a storage, with this content."""

    def __init__(self, storage: object, name: str, data: bytes) -> None:
        self._storage, self._name, self._data = str(storage), name, data

    def __str__(self) -> str:
        return self._storage

    def read_ranges(self, ranges: Sequence[Range]) -> list[bytes]:
        if any(name != self._name for name, *_ in ranges):
            raise IntegrityError(f"{self._storage}: only {self._name} was read")
        return [self._data[start : start + length] for _, start, length in ranges]
