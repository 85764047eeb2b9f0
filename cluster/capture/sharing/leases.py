"""Leases: which driver captures which window of a job, so that two drivers on one store share the work."""

from contextlib import suppress

from cache.errors import IntegrityError, StoreError
from cache.json_documents import decode_document, encode_document
from cache.storage.base import Storage
from cluster.capture.sharing.drivers import is_alive

FOLDER, DOCUMENT = "leases", ".json"


class Leases:
    """The leases of a driver. A lease belongs to its driver as long as that works; then another one may take it."""

    def __init__(self, storage: Storage, driver: str) -> None:
        self._storage, self._driver = storage, driver
        self._held: dict[str, int] = {}

    def claim(self, name: str) -> bool:
        """Take the lease of a window, unless another driver that is at work has it. Returns whether it is ours."""
        if name in self._held:
            return True
        numbers = self._numbers(name)
        if numbers and self._owner(name, numbers[-1]) not in ("", self._driver):
            return False
        number = numbers[-1] + 1 if numbers else 0
        # Of several drivers that try this at the same time, one creates the file.
        if not self._storage.create(_path(name, number), encode_document({"driver": self._driver})):
            return False
        self._held[name] = number
        return True

    def release(self, name: str) -> None:
        """Give a lease back: all of its window is captured."""
        number = self._held.pop(name, None)
        if number is None:
            return
        for each in self._numbers(name):
            if each <= number:
                self._storage.remove_folder(_path(name, each))

    def release_all(self) -> None:
        """Give all leases back."""
        for name in list(self._held):
            self.release(name)

    def _numbers(self, name: str) -> list[int]:
        return [int(file.removesuffix(DOCUMENT)) for file in self._storage.names(f"{FOLDER}/{name}", DOCUMENT)]

    def _owner(self, name: str, number: int) -> str:
        """The driver that has a lease and works; "" if there is none."""
        with suppress(IntegrityError, StoreError):
            path = _path(name, number)
            driver = str(decode_document(self._storage.read(path), path, ("driver",))["driver"])
            return driver if is_alive(self._storage, driver) else ""
        return ""


def _path(name: str, number: int) -> str:
    return f"{FOLDER}/{name}/{number:06d}{DOCUMENT}"
