"""The description of an example in a part: its key, its origin and all its texts, as JSON that any reader reads."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from cache.errors import InputError, IntegrityError
from cache.examples.example import Example
from cache.examples.json_values import require_json_value
from cache.json_documents import require_fields, require_readable
from cache.parts.zarr_shard import Shard
from cache.rows.record import Record

_FIELDS = {"key", "origin", "example"}
_JSON = json.JSONDecoder()


def describe(record: Record) -> bytes:
    """The description of a record that passed require_storable."""
    fields = {"key": record.key, "origin": record.tokenized.origin, "example": record.tokenized.example.to_document()}
    return json.dumps(fields, ensure_ascii=False, sort_keys=True, allow_nan=False).encode()


def require_storable(record: Record) -> None:
    """Raise InputError, with the example and the key of the value, if a text or a value would not be read as it is."""
    example, origin = record.tokenized.example, record.tokenized.origin
    example.require_storable()
    require_json_value(origin, "origin", f"example {example.id}")
    if not isinstance(origin, str) or not origin or "\n" in origin:
        raise InputError(f"example {example.id}: origin {origin!r} must be one line of text")


def differing_fields(first: Example, second: Example) -> list[str]:
    """Names of the fields in which two examples differ."""
    one, other = first.to_document(), second.to_document()
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


class Descriptions:
    """Reads the descriptions of a part.

    shard: of the array of their bytes. starts: first byte of each, and the end. read: gives bytes start:stop of the
    file. Raises IntegrityError, with the name of the file, for damaged data.
    """

    def __init__(self, shard: Shard, starts: list[int], read: Callable[[int, int], bytes]) -> None:
        self._shard, self._starts, self._read = shard, starts, read

    def all_bytes(self) -> bytes:
        """All descriptions, one after the other."""
        return self._bytes(0, self._starts[-1])

    def read(self, positions: Sequence[int]) -> list[dict[str, Any]]:
        """Key, origin and example of each of these examples, in the requested order.

        A chunk of texts is decoded once, however many of the examples it contains.
        """
        starts, chunk = self._starts, self._shard.spec.chunk
        results: list[dict[str, Any]] = [{}] * len(positions)
        order = sorted(range(len(positions)), key=positions.__getitem__)
        begin = 0
        while begin < len(order):
            end = begin + 1
            start, stop = starts[positions[order[begin]]], starts[positions[order[begin]] + 1]
            last = -(-stop // chunk)
            while end < len(order) and starts[positions[order[end]]] // chunk < last:
                stop = starts[positions[order[end]] + 1]
                last = -(-stop // chunk)
                end += 1
            text = self._bytes(start, stop)
            for number in order[begin:end]:
                i = positions[number]
                results[number] = self._parse(i, text[starts[i] - start : starts[i + 1] - start])
            begin = end
        return results

    def examples(self, positions: Sequence[int]) -> list[tuple[str, str, Example]]:
        """Key, origin and texts of each of these examples, in the requested order."""
        found = []
        for i, fields in zip(positions, self.read(positions), strict=True):
            try:
                found.append((fields["key"], fields["origin"], Example.from_document(fields["example"])))
            except KeyError as error:
                raise IntegrityError(f"{self._what(i)} has no {error}") from None
        return found

    def _bytes(self, start: int, stop: int) -> bytes:
        if start == stop:
            return b""
        chunk, bounds = self._shard.spec.chunk, self._shard.bounds
        first, last = start // chunk, -(-stop // chunk)
        values = self._shard.decode(self._read(bounds[first], bounds[last]), first, last)
        return values[start - first * chunk : stop - first * chunk].tobytes()

    def _parse(self, i: int, stored: bytes) -> dict[str, Any]:
        try:
            text = stored.decode().strip()
            description, end = _JSON.raw_decode(text)  # json.loads takes almost twice as long for a short text
            if end != len(text) or not isinstance(description, dict):
                raise ValueError
        except (ValueError, RecursionError) as error:
            raise IntegrityError(f"{self._what(i)} is not described by JSON") from error
        if description.keys() != _FIELDS:  # the names in messages take as long as the rest
            require_readable(description, self._what(i))
            require_fields(description, sorted(_FIELDS), self._what(i))
        return description

    def _what(self, i: int) -> str:
        return f"{self._shard.what}: example {i} of the part"
