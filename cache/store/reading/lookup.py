"""Find one example by its id, or by the start of its key."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from cache.errors import StoreError
from cache.examples.example import Example
from cache.store.reading.selection import select_where

LISTED_DIGITS = 12


class Findable(Protocol):
    """Stored examples, as far as the search reads them."""

    @property
    def keys(self) -> npt.NDArray[np.uint8]: ...
    def texts(self, examples: Sequence[int]) -> list[Example]: ...


def find_example(store: Findable, key: str, name: str) -> int:
    """Number of the example with the id `key`, or, if there is none, of the one whose key starts with `key`.

    A search by anything but a whole key reads the texts of all examples. Raises StoreError, starting with `name`,
    unless there is exactly one example, with the first keys if several have the id.
    """
    keys = store.keys
    by_key = np.flatnonzero(_starts_with(keys, key.lower())) if key else np.arange(len(keys))
    is_whole = len(key) == 2 * keys.shape[1] and len(by_key)
    by_id = by_key[:0] if is_whole or not key else with_id(store, key)
    matches = by_id if len(by_id) else by_key
    if len(matches) != 1:
        listed = ", ".join(keys[i].tobytes().hex()[:LISTED_DIGITS] for i in by_id[:5].tolist())
        raise StoreError(
            f"{name}: {len(matches)} examples have the id {key!r} or a key that starts with it"
            f"{f' (keys {listed})' if listed else ''}; need one"
        )
    return int(matches[0])


def with_id(store: Findable, name: str) -> npt.NDArray[np.int64]:
    """Numbers of the examples with the id `name`, int64."""
    return select_where(store, np.arange(len(store.keys)), lambda example: example.id == name)


def _starts_with(keys: npt.NDArray[np.uint8], start: str) -> npt.NDArray[np.bool_]:
    """Whether each key starts with these hexadecimal digits; bool [examples]."""
    try:
        head = np.frombuffer(bytes.fromhex(start[: len(start) // 2 * 2]), np.uint8)
        half_byte = int(start[-1], 16) if len(start) % 2 else None
    except ValueError:
        return np.zeros(len(keys), bool)
    if len(start) > 2 * keys.shape[1]:
        return np.zeros(len(keys), bool)
    same = np.asarray((keys[:, : len(head)] == head).all(axis=1))
    return same if half_byte is None else np.asarray(same & (keys[:, len(head)] >> 4 == half_byte))
