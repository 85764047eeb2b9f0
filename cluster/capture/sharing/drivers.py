"""Which drivers work on a store: each one is a folder in it, whose newest file says what the driver does."""

import os
import socket
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.errors import IntegrityError, StoreError
from cache.json_documents import decode_document, encode_document
from cache.storage.base import Storage

FOLDER, DOCUMENT = "drivers", ".json"
FIELDS = ("machine", "host", "pid", "process", "facts")
# A driver writes its file every BEAT_SECONDS. One that has not for EXPIRY_SECONDS is gone: killed, or cut off.
BEAT_SECONDS, EXPIRY_SECONDS = 10.0, 60.0


@dataclass(frozen=True, slots=True)
class Driver:
    """A driver, as its file says. host: of its machine. seconds: since its last sign of life. facts: how far it is."""

    name: str
    host: str
    pid: int
    seconds: float
    facts: dict[str, Any]


class Presence:
    """This driver in a store, from `begin` to `end`. facts: called for what the file says."""

    def __init__(self, storage: Storage, facts: Callable[[], dict[str, Any]]) -> None:
        self.name = uuid.uuid4().hex
        self._storage, self._facts = storage, facts
        self._count = 0
        self._written = 0.0

    def beat(self) -> None:
        """Say that this driver is alive, if it is time to."""
        if time.monotonic() - self._written < BEAT_SECONDS and self._count:
            return
        who = {
            "machine": _machine(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process": _process(os.getpid()),
        }
        document = {**who, "facts": self._facts()}
        self._storage.create(self._file(self._count), encode_document(document))
        if self._count:
            self._storage.remove_folder(self._file(self._count - 1))
        self._count += 1
        self._written = time.monotonic()

    def end(self) -> None:
        """Leave the store."""
        self._storage.remove_folder(f"{FOLDER}/{self.name}")

    def _file(self, count: int) -> str:
        return f"{FOLDER}/{self.name}/{count:08d}{DOCUMENT}"


def is_alive(storage: Storage, name: str) -> bool:
    """Whether a driver works on the store. On the same machine its process is looked for; it need not be waited for."""
    try:
        document = _newest(storage, name)
    except StoreError:
        document = None
    if document is None:
        return False
    if document["machine"] == _machine():
        return bool(_process(int(document["pid"])) == document["process"])
    return storage.age(f"{FOLDER}/{name}") < EXPIRY_SECONDS


def drivers_of(storage: Storage) -> list[Driver]:
    """The drivers that work on a store now."""
    found = []
    for name in storage.names(FOLDER):
        with suppress(StoreError):
            document = _newest(storage, name)
            if document is not None and is_alive(storage, name):
                age = storage.age(f"{FOLDER}/{name}")
                found.append(Driver(name, document["host"], document["pid"], age, document["facts"]))
    return found


def remove_gone(storage: Storage) -> None:
    """Remove the folders of drivers that were killed."""
    for name in storage.names(FOLDER):
        if not is_alive(storage, name):
            storage.remove_folder(f"{FOLDER}/{name}")


def _newest(storage: Storage, name: str) -> dict[str, Any] | None:
    for _ in range(3):  # a file may be replaced by the next one between listing and reading
        files = storage.names(f"{FOLDER}/{name}", DOCUMENT)
        if not files:
            return None
        path = f"{FOLDER}/{name}/{files[-1]}"
        with suppress(IntegrityError):
            return decode_document(storage.read(path), path, FIELDS)
    return None


def _machine() -> str:
    """A name for this machine, and for the numbers of its processes, which a container has for itself."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    numbers = Path("/proc/self/ns/pid")
    return f"{boot.read_text().strip() if boot.exists() else socket.gethostname()}:{numbers.stat().st_ino}"


def _process(pid: int) -> str:
    """A name for a running process that no later one with its number has; "" if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else f"{pid}:{fields[19]}"
