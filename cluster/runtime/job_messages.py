"""What is wrong with a job file, in plain words: syntax, encoding, values, and a job of another verb."""

import re
import tomllib
from pathlib import Path
from typing import Any

from cache.errors import InputError, plain_reason

# What a value must be, by the start of pydantic's name of the error. Errors about ranges are plain already.
KINDS = {
    "int_": "must be a whole number",
    "float_": "must be a number",
    "finite_number": "must be a finite number",
    "string_": "must be a text in quotes",
    "bool_": "must be true or false",
    "tuple_": "must be a list",
    "list_": "must be a list",
    "dict_type": "must be a table",
    "path_": "must be a path, a text in quotes",
}
# What the parser of TOML says, and what to do.
SYNTAX = {
    "Invalid value": "this is no value of TOML; a text needs quotes",
    "Cannot overwrite a value": "this key is there twice",
    "Cannot declare": "this table is there twice",
}


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a job file. Raises InputError with the line and what to do."""
    if path.is_dir():
        raise InputError(f"job file {path}: is a folder; give the TOML file of a job")
    if not path.is_file():
        raise InputError(f"job file {path}: no such file")
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"job file {path}{_syntax(str(error))}") from None
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"job file {path}: {plain_reason(error)}") from None


def _syntax(message: str) -> str:
    """The message of a syntax error, with the line first: ", line 2: not valid TOML: ..."."""
    text, _, place = message.partition(" (at ")
    line = re.search(r"line (\d+)", place)
    fix = next((fix for start, fix in SYNTAX.items() if text.startswith(start)), text[:1].lower() + text[1:])
    return f"{f', line {line.group(1)}' if line else ''}: not valid TOML: {fix}; write key = value lines and [tables]"


def plain_kind(error_type: str) -> str:
    """What a value must be, for an error of a wrong type; "" for other errors."""
    return next((words for start, words in KINDS.items() if error_type.startswith(start)), "")
