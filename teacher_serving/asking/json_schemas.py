"""JSON schemas that responses follow: read from a file, and as services with OpenAI's API are told to follow one."""

import json
from pathlib import Path
from typing import Any

from cache.errors import InputError
from cache.examples.files.json_line import parse_json_line
from cache.rows.spec import SamplingSpec

# Name of the schema at a service.
SCHEMA_NAME = "answer"
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


def response_format(sampling: SamplingSpec, schema_form: str = "json_schema") -> dict[str, Any]:
    """The key `response_format` of OpenAI's API and of vLLM's server; nothing without a schema.

    schema_form: "json_object" asks for any JSON object. Services with that form want the word JSON in the prompt.
    """
    if not sampling.json_schema:
        return {}
    if schema_form == "json_object":
        return {"response_format": {"type": "json_object"}}
    schema = {"name": SCHEMA_NAME, "strict": True, "schema": json.loads(sampling.json_schema)}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}
