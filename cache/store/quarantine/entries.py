"""Entries of the quarantine: documents with a checksum, by the key of the example."""

from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from cache.errors import IntegrityError
from cache.json_documents import decode_document, encode_document
from cache.storage.base import Storage

Result = TypeVar("Result")

# Documents that are read at the same time.
READERS = 16
FOLDER, DOCUMENT, MARK = "quarantine", ".json", ".obsolete"


@dataclass(frozen=True, slots=True)
class QuarantineEntry:
    """An example that could not be captured. time: when it was noted, ISO 8601 in UTC. is_obsolete: see the package."""

    key: str
    id: str
    reason: str
    time: str
    is_obsolete: bool = False


def quarantine_example(storage: Storage, key: str, example_id: str, reason: str, time: str = "") -> bool:
    """Record an example that could not be captured, and the reason. Returns False if it is recorded already.

    time: ISO 8601; now if it is empty.
    """
    time = time or datetime.now(UTC).isoformat(timespec="seconds")
    document = encode_document({"key": key, "id": example_id, "reason": reason, "time": time})
    storage.remove_folder(_mark_path(key))
    return storage.create(document_path(key), document)


def quarantined_keys(storage: Storage) -> list[str]:
    """Sorted keys of all entries, obsolete ones included."""
    return [name.removesuffix(DOCUMENT) for name in storage.names(FOLDER, DOCUMENT)]


def obsolete_keys(storage: Storage) -> list[str]:
    """Sorted keys of the entries that are marked as obsolete."""
    return [name.removesuffix(MARK) for name in storage.names(FOLDER, MARK)]


def waiting_keys(storage: Storage) -> list[str]:
    """Sorted keys of the entries that are not marked as obsolete."""
    return sorted(set(quarantined_keys(storage)).difference(obsolete_keys(storage)))


def read_entry(storage: Storage, key: str, is_obsolete: bool = False) -> QuarantineEntry:
    """The entry of a key. Raises IntegrityError if its document is missing or altered, or is that of another key."""
    name = document_path(key)
    body = decode_document(storage.read(name), f"{storage}/{name}", ("key", "id", "reason", "time"))
    if body["key"] != key:
        raise IntegrityError(f"{storage}/{name}: is not the entry of this example")
    return QuarantineEntry(key, str(body["id"]), str(body["reason"]), str(body["time"]), is_obsolete)


def read_entries(storage: Storage, captured: Collection[str] = ()) -> list[QuarantineEntry]:
    """All entries, sorted by key. captured: keys of the store's examples; their entries are obsolete."""
    obsolete = set(obsolete_keys(storage)).union(captured)
    return read_all(lambda key: read_entry(storage, key, key in obsolete), quarantined_keys(storage))


def read_all(read: Callable[[str], Result], keys: Iterable[str]) -> list[Result]:
    """Apply `read` to each key, in order, several at a time: an object store needs long for each document."""
    with ThreadPoolExecutor(READERS, "quarantine") as pool:
        return list(pool.map(read, keys))


def update_marks(storage: Storage, planned: Collection[str], captured: Collection[str]) -> None:
    """Mark the entries as obsolete whose examples are not planned any more or are captured, and no others."""
    marked = set(obsolete_keys(storage))
    for key in quarantined_keys(storage):
        is_obsolete = key not in planned or key in captured
        if is_obsolete and key not in marked:
            storage.create(_mark_path(key), b"\n")
        elif key in marked and not is_obsolete:
            storage.remove_folder(_mark_path(key))


def remove_entries(storage: Storage, keys: Iterable[str]) -> None:
    """Remove entries, so that a later capture asks for their examples again."""
    for key in keys:
        for name in entry_files(key):
            storage.remove_folder(name)


def document_path(key: str) -> str:
    """Name of the document of an entry in the store."""
    return f"{FOLDER}/{key}{DOCUMENT}"


def entry_files(key: str) -> tuple[str, str]:
    """Names of the files that an entry may have, in the order in which they are removed."""
    return _mark_path(key), document_path(key)


def _mark_path(key: str) -> str:
    return f"{FOLDER}/{key}{MARK}"
