"""Which values JSON gives back as they were."""

import math
from typing import Any

from cache.errors import InputError

# Python refuses to write or read longer integers where it is set to its lowest limit, 640 digits.
MAX_INTEGER_BITS = 2126
# Readers and writers of JSON are recursive.
MAX_DEPTH = 100


def require_json_value(value: Any, name: str, what: str, depth: int = 0) -> None:
    """Raise InputError unless JSON gives the value back. name: where it is. what: whose it is."""
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
            require_json_value(each, f"{name}[{position}]", what, depth + 1)
    elif isinstance(value, dict):
        for key, each in value.items():
            if not isinstance(key, str):
                raise InputError(f"{what}: {name} has the key {key!r} of type {type(key).__name__}; keys must be text")
            require_json_value(key, f"a key of {name}", what, depth)
            require_json_value(each, f"{name}[{key!r}]", what, depth + 1)
    else:
        kind = type(value).__name__
        raise InputError(
            f"{what}: {name} is of the type {kind}, which would not be read as it is; give text, a number, a bool, "
            "None, a list or a dict"
        )
