"""JSON files of data sets, and their fields by type. Every error names the file and the place in it."""

from pathlib import Path
from typing import Any, TypeVar

from cache.errors import InputError
from cache.examples.files.json_line import parse_json_line

T = TypeVar("T")
NAMES: dict[type, str] = {str: "text", list: "a list", dict: "an object", bool: "true or false"}


def read_json_file(path: Path) -> Any:
    """The value of a JSON file in UTF-8; a byte-order mark is ignored. Raises InputError."""
    try:
        return parse_json_line(path.read_bytes(), is_first=True)
    except OSError as error:
        raise InputError(f"{path}: {(error.strerror or str(error)).lower()}; give a file that can be read") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


def field_of(value: Any, name: str, kind: type[T], place: str) -> T:
    """The field `name` of an object. Raises InputError if it is absent or of another type."""
    if not isinstance(value, dict):
        raise InputError(f"{place}: must be an object with the field {name!r}, not {type(value).__name__}")
    if name not in value:
        raise InputError(f"{place}: has no field {name!r}")
    item = value[name]
    if not isinstance(item, kind):
        raise InputError(f"{place}: {name!r} must be {NAMES[kind]}, not {type(item).__name__}")
    return item
