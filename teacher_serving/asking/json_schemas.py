"""JSON schemas that responses follow: read from a file, as a store keeps them."""

from pathlib import Path
from typing import Any

from cache.errors import InputError
from cache.examples.json_line import parse_json_line

# One of these says what a value must be. A schema without any allows everything.
_KINDS = ("type", "properties", "$ref", "anyOf", "oneOf", "allOf", "enum", "const")


def read_json_schema(path: Path) -> dict[str, Any]:
    """The schema in a file. Raises InputError if there is none, or if it is no JSON schema of a value."""
    if not path.is_file():
        raise InputError(f"generation.json_schema {path}: no such file; give a file with a JSON schema")
    try:
        schema = parse_json_line(path.read_bytes(), is_first=True)
    except ValueError as error:
        raise InputError(f"generation.json_schema {path}: {error}") from None
    if not isinstance(schema, dict) or not set(_KINDS) & set(schema):
        raise InputError(
            f"generation.json_schema {path}: is no JSON schema; give an object with one of {', '.join(_KINDS)}"
        )
    return schema
