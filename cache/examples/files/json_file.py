"""Read the values of a JSON file in any of the forms in which data sets come, with the line of each."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.errors import InputError
from cache.examples.files.json_line import BYTE_ORDER_MARK, require_text, strict_decoder

BLANK = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True, slots=True)
class FileValue:
    """A value of a file, and the line where it begins, from 1."""

    value: Any
    line: int


class _BadValueError(Exception):
    """What is wrong, and the offset in the text where it is."""

    def __init__(self, reason: str, offset: int) -> None:
        super().__init__(reason)
        self.offset = offset


def read_json_values(path: Path, what: str) -> list[FileValue]:
    """Read all values of a file: one after another (JSON Lines, or printed over several lines), or those of one array.

    what: the kind of file for messages, such as "data file". Raises InputError, with file and line, for a file that is
    missing, empty or not strict JSON in UTF-8 (see cache.examples.files.json_line).
    """
    if not path.is_file():
        reason = "is a folder" if path.is_dir() else "no such file"
        raise InputError(f"{what} {path}: {reason}; give the path of the file")
    try:
        text = path.read_bytes().removeprefix(BYTE_ORDER_MARK).decode("utf-8")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{what} {path}, line {line}: is not UTF-8 text; save the file as UTF-8") from None
    values: list[FileValue] = []
    line, counted = 1, 0
    try:
        for offset, value in _elements(text) if text.lstrip().startswith("[") else _sequence(text):
            line, counted = line + text.count("\n", counted, offset), offset
            values.append(FileValue(value, line))
    except _BadValueError as error:
        line = text.count("\n", 0, error.offset) + 1
        raise InputError(f"{what} {path}, line {line}: {error}") from None
    if not values:
        raise InputError(f"{what} {path}: is empty")
    return values


def _sequence(text: str) -> Iterator[tuple[int, Any]]:
    """Values one after another, each with its offset."""
    position = _skip(text, 0)
    while position < len(text):
        value, end = _decode(text, position)
        yield position, value
        position = _skip(text, end)


def _elements(text: str) -> Iterator[tuple[int, Any]]:
    """The elements of one array, each with its offset."""
    position = _skip(text, _skip(text, 0) + 1)
    has_more = not text.startswith("]", position)
    while has_more:
        value, end = _decode(text, position)
        yield position, value
        position = _skip(text, end)
        has_more = text.startswith(",", position)
        if has_more:
            position = _skip(text, position + 1)
        elif not text.startswith("]", position):
            raise _BadValueError("is not JSON: expecting ',' or ']' after an element", position)
    if (rest := _skip(text, position + 1)) < len(text):
        raise _BadValueError("is not JSON: more text after the array", rest)


def _decode(text: str, position: int) -> tuple[Any, int]:
    """The value at an offset, and the offset behind it."""
    try:
        value, end = strict_decoder().raw_decode(text, position)
        require_text(value)
        return value, end
    except json.JSONDecodeError as error:
        reason = f"is not JSON: {error.msg.lower()} at character {error.colno}"
        raise _BadValueError(reason, error.pos) from None
    except RecursionError:
        raise _BadValueError("is nested too deeply", position) from None
    except ValueError as error:
        raise _BadValueError(str(error), position) from None


def _skip(text: str, position: int) -> int:
    match = BLANK.match(text, position)
    return match.end() if match else position
