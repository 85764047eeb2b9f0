"""Rows of a published CSV file, each with its line. Knows nothing of what the columns mean."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from cache.errors import InputError

# The longest field of the sets has 14 thousand characters; the limit of the standard library is 131 thousand.
MAX_FIELD = 1 << 24


def read_csv_rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield "FILE, line N" and the stripped texts of the columns. Line ends become those of Unix; a mark is ignored.

    N is the line on which the row begins. Raises InputError, with the line, for a file that is missing, is not UTF-8 or
    has no rows, for a missing column, and for a row with an empty column or with more columns than the first line.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the folder that contains it")
    csv.field_size_limit(MAX_FIELD)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise InputError(f"{path}, line {line}: is not UTF-8 text; save the file as UTF-8") from None
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    missing = [name for name in columns if name not in (reader.fieldnames or ())]
    if missing:
        present = ", ".join(reader.fieldnames or ()) or "none"
        raise InputError(f"{path}, line 1: has no column {missing[0]!r}; its columns: {present}")
    begin, count = reader.line_num + 1, 0
    try:
        for row in reader:
            where = f"{path}, line {begin}"
            yield where, _texts(row, columns, where)
            begin, count = reader.line_num + 1, count + 1
    except csv.Error as error:
        raise InputError(f"{path}, line {begin}: is not CSV: {error}") from None
    if not count:
        raise InputError(f"{path}: has no rows; it needs at least one below the line of column names")


def _texts(row: dict[str, str | None], columns: tuple[str, ...], where: str) -> dict[str, str]:
    if None in row:
        raise InputError(f"{where}: has more columns than the first line; put texts with commas in quotes")
    texts = {name: "\n".join((row[name] or "").splitlines()).strip() for name in columns}
    if empty := [name for name, text in texts.items() if not text]:
        raise InputError(f"{where}: the column {empty[0]!r} is empty; give its text, or remove the row")
    return texts
