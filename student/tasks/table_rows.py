"""Rows of a published table in a text file (CSV, TSV), each with its line. Knows nothing of what the columns mean."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from cache.errors import InputError, plain_reason

# Longer than any text of the sets, so that a quotation mark without an end is found by the wrong number of fields.
csv.field_size_limit(1 << 24)


def read_rows(
    path: Path, columns: Sequence[str], delimiter: str = ",", quoted: bool = True, optional: Sequence[str] = ()
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield "FILE, line N" and the stripped texts of the named columns of each row; other columns are not read.

    N is the line on which the row begins. quoted: whether fields may be quoted, as in CSV; otherwise a quotation mark
    is a character like others. A byte-order mark and line ends of Windows are accepted, and blank lines are passed
    over. Raises InputError for a file that cannot be read or has no rows, a missing column, and a row with another
    number of fields than the header.
    """
    rows = csv.reader(
        io.StringIO(_text(path), newline=""),
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        strict=True,
    )
    header: list[str] = []
    start, count = 1, 0
    try:
        for row in rows:
            place, start = f"{path}, line {start}", rows.line_num + 1
            if not any(field.strip() for field in row):
                continue
            if not header:
                header = [name.strip() for name in row]
                _require_columns(path, header, columns, delimiter)
                continue
            if len(row) != len(header):
                quotes = f", and put texts that contain {delimiter!r} in quotes" if quoted else ""
                raise InputError(
                    f"{place}: {len(row)} fields, and the header has {len(header)}; give every row a field for each "
                    f"column{quotes}"
                )
            values = dict(zip(header, row, strict=True))
            yield place, {name: _clean(values.get(name, "")) for name in (*columns, *optional)}
            count += 1
    except csv.Error as error:
        raise InputError(f"{path}, line {start}: {error}; correct the line") from error
    if not header:
        raise InputError(f"{path}: empty; its first line must name the columns {', '.join(columns)}")
    if not count:
        raise InputError(f"{path}: has no rows; it needs at least one below the line of column names")


def require_fields(place: str, row: dict[str, str], names: Sequence[str]) -> None:
    """Raise InputError if one of these fields is empty."""
    if empty := [name for name in names if not row[name]]:
        raise InputError(f"{place}: the field {empty[0]!r} is empty; fill it in, or remove the line")


def _clean(text: str) -> str:
    """Line ends become those of Unix; other characters that Python takes for line ends are part of the text."""
    return re.sub(r"\r\n?", "\n", text).strip()


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {plain_reason(error)}; give the path of the file") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(f"{path}, line {line}: is not UTF-8 text; save the file as UTF-8") from error


def _require_columns(path: Path, header: Sequence[str], columns: Sequence[str], delimiter: str) -> None:
    if missing := [name for name in columns if name not in header]:
        separator = "tabs" if delimiter == "\t" else f"{delimiter!r}"
        found = ", ".join(f"{name[:40]!r}" for name in header[:8]) + (", ..." if len(header) > 8 else "")
        raise InputError(
            f"{path}, line 1: there is no column {missing[0]!r}; the line has {found}. The columns must be "
            f"{', '.join(columns)}, separated by {separator}"
        )
    if doubled := [name for name in columns if header.count(name) > 1]:
        raise InputError(f"{path}, line 1: there are two columns {doubled[0]!r}; keep one of them")
