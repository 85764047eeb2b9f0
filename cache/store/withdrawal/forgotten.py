"""Forgotten examples: documents with key, reason and time. They contain no id and no text."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from cache.errors import InputError, IntegrityError
from cache.json_documents import decode_document, encode_document
from cache.storage.base import Storage

FOLDER, DOCUMENT = "forgotten", ".json"


@dataclass(frozen=True, slots=True)
class ForgottenExample:
    """time: when it was forgotten, ISO 8601 in UTC."""

    key: str
    reason: str
    time: str


def mark_forgotten(storage: Storage, keys: Iterable[str], reason: str = "") -> list[str]:
    """Record that the examples with these keys must not be kept. Returns the keys that were not recorded before.

    Raises InputError, before anything is written, for a key that is not 32 hexadecimal digits.
    """
    keys = list(dict.fromkeys(keys))
    for key in keys:
        if not re.fullmatch("[0-9a-f]{32}", key):
            raise InputError(f"key {key!r}: must be 32 hexadecimal digits")
    time = datetime.now(UTC).isoformat(timespec="seconds")
    present = set(forgotten_keys(storage))
    new = [key for key in keys if key not in present]
    for key in new:
        storage.create(forgotten_path(key), encode_document({"key": key, "reason": reason, "time": time}))
    return new


def forgotten_keys(storage: Storage) -> list[str]:
    """Sorted keys of all forgotten examples."""
    return [name.removesuffix(DOCUMENT) for name in storage.names(FOLDER, DOCUMENT)]


def read_forgotten(storage: Storage, key: str) -> ForgottenExample:
    """The document about a key. Raises IntegrityError if it is missing or altered, or is about another key."""
    name = forgotten_path(key)
    body = decode_document(storage.read(name), f"{storage}/{name}", ("key", "reason", "time"))
    if body["key"] != key:
        raise IntegrityError(f"{storage}/{name}: is not about this example")
    return ForgottenExample(key, str(body["reason"]), str(body["time"]))


def hashes_of_keys(keys: Iterable[str]) -> tuple[str, ...]:
    """A hash of each key, sorted. Snapshots list them, so that a lost document is noticed: they must not list keys."""
    return tuple(sorted(hashlib.sha256(key.encode()).hexdigest() for key in keys))


def forgotten_path(key: str) -> str:
    """Name of the document about a key."""
    return f"{FOLDER}/{key}{DOCUMENT}"
