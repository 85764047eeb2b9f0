"""The description of an example in a part: its key, its origin and all its texts, as JSON that any reader reads."""

import json

from cache.errors import InputError
from cache.examples.example import Example
from cache.examples.json_values import require_json_value
from cache.rows.record import Record


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
