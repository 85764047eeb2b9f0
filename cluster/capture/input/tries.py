"""Tries: how often responses have lost their worker, noted in the store, so that the count survives the driver."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import IntegrityError
from cache.json_documents import decode_document, encode_document
from cache.storage.base import Storage
from cache.store.segments.keys import Array, is_among, keys_of_hex, sorting_order
from cluster.capture.input.work import Work

FOLDER, DOCUMENT = "tries", ".json"
FIELDS = ("keys", "deaths")


class Tries:
    """The notes of a store. There is one for each group of responses that lost its worker and is not captured yet."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._groups = [group for name in storage.names(FOLDER, DOCUMENT) if (group := self._read(name))]

    def divide(self, keys: Array, examples: npt.NDArray[np.int64]) -> Iterator[tuple[npt.NDArray[np.intp], int]]:
        """The parts of a unit: places of those responses that have lost workers together, with their number of deaths.

        keys: void16 [n]; examples: int64 [n], equal for responses to one example, which stay together.
        """
        rest = np.ones(len(keys), bool)
        for known, deaths in self._groups:
            part = rest & np.isin(examples, examples[is_among(keys, known)])
            if part.any():
                yield np.flatnonzero(part), deaths
                rest &= ~part
        if rest.any():
            yield np.flatnonzero(rest), 0

    def note(self, work: Work) -> None:
        """Note that a unit has lost its worker once more."""
        self.clear(work)
        document = {"keys": _hexadecimal(work.keys), "deaths": work.deaths}
        self._storage.create(_path(work, work.deaths), encode_document(document))

    def clear(self, work: Work) -> None:
        """Remove the note about a unit that is captured, divided or set aside."""
        for deaths in range(work.deaths + 1):
            self._storage.remove_folder(_path(work, deaths))

    def _read(self, name: str) -> tuple[Array, int] | None:
        """A note. One that cannot be read counts for nothing: its unit is tried from the beginning."""
        path = f"{FOLDER}/{name}"
        try:
            document: dict[str, Any] = decode_document(self._storage.read(path), f"{self._storage}/{path}", FIELDS)
        except (IntegrityError, FileNotFoundError):
            return None
        keys = keys_of_hex(document["keys"])
        return keys[sorting_order(keys)], int(document["deaths"])


def _path(work: Work, deaths: int) -> str:
    first = _hexadecimal(work.keys[:1])[0]
    return f"{FOLDER}/{first}-{len(work)}-{deaths}{DOCUMENT}"


def _hexadecimal(keys: Array) -> list[str]:
    return [key.tobytes().hex() for key in keys]
