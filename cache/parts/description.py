"""The description of an example in a part: its key, its origin and all its texts, as JSON that any reader reads."""

import json
import math
from typing import Any

from cache.errors import InputError
from cache.examples.example import Example
from cache.rows.record import Record

# Python refuses to write or read longer integers where it is set to its lowest limit, 640 digits.
MAX_INTEGER_BITS = 2126
# Readers and writers of JSON are recursive.
MAX_DEPTH = 100


def describe(record: Record) -> bytes:
    """The description of a record that passed require_storable."""
    fields = {"key": record.key, "origin": record.tokenized.origin, "example": record.tokenized.example.to_document()}
    return json.dumps(fields, ensure_ascii=False, sort_keys=True, allow_nan=False).encode()


def require_storable(record: Record) -> None:
    """Raise InputError, with the example and the key of the value, if a text or a value would not be read as it is."""
    example, origin = record.tokenized.example, record.tokenized.origin
    what = f"example {str(example.id).encode(errors='backslashreplace').decode()}"
    texts = {"id": example.id, "rationale": example.rationale, "response": example.response, "label": example.label}
    for name, text in {**texts, "origin": origin}.items():
        if not isinstance(text, str):
            raise InputError(f"{what}: {name} must be text, not {type(text).__name__}")
        _require_value(text, name, what, 0)
    if not origin or "\n" in origin:
        raise InputError(f"{what}: origin {origin!r} must be one line of text")
    for name in ("messages", "tools"):
        turns = getattr(example, name)
        if not isinstance(turns, tuple | list):
            raise InputError(f"{what}: {name} must be a sequence, not {type(turns).__name__}")
        for position, turn in enumerate(turns):
            _require_value(turn, f"{name}[{position}]", what, 1)
    if not isinstance(example.metadata, dict):
        raise InputError(f"{what}: metadata must be a dict, not {type(example.metadata).__name__}")
    _require_value(example.metadata, "metadata", what, 0)


def differing_fields(first: Example, second: Example) -> list[str]:
    """Names of the fields in which two examples differ."""
    one, other = first.to_document(), second.to_document()
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def _require_value(value: Any, name: str, what: str, depth: int) -> None:
    """Raise InputError unless JSON gives the value back. name: where it is in the example."""
    if depth > MAX_DEPTH:
        raise InputError(f"{what}: {name[:60]}... is nested deeper than {MAX_DEPTH} levels")
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise InputError(f"{what}: {name} has half of a surrogate pair, which is not valid Unicode text")
    elif isinstance(value, int):
        if value.bit_length() > MAX_INTEGER_BITS:
            raise InputError(f"{what}: {name} is an integer of {value.bit_length()} bits; write it as text")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise InputError(f"{what}: {name} is {value}, which JSON does not have; leave it out, or give None or text")
    elif isinstance(value, list):
        for position, each in enumerate(value):
            _require_value(each, f"{name}[{position}]", what, depth + 1)
    elif isinstance(value, dict):
        for key, each in value.items():
            if not isinstance(key, str):
                raise InputError(f"{what}: {name} has the key {key!r} of type {type(key).__name__}; keys must be text")
            _require_value(key, f"a key of {name}", what, depth)
            _require_value(each, f"{name}[{key!r}]", what, depth + 1)
    else:
        kind = type(value).__name__
        raise InputError(
            f"{what}: {name} is of the type {kind}, which would not be read as it is; give text, a number, a bool, "
            "None, a list or a dict"
        )
