"""Windows: consecutive lines of an examples file, which can be parsed elsewhere and at the same time."""

import gzip
import io
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from cache.errors import InputError
from cache.examples.files.input_files import TABLE, InputFile, find_files

# Lines are read in pieces of about so many bytes, whatever their number.
WINDOW_BYTES = 32 << 20
NO_FIELDS: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Window:
    """Lines of one file, not parsed yet.

    source: the file's name if the input has several files, otherwise "". first: number of the first line, from 1.
    lines: JSON as bytes, or rows of a table as dicts. bytes_read: of the file's bytes, how many come before its end.
    fields: by a key of examples, the name under which the lines have it, such as {"prompt": "question"}; then no other
    key of a line counts. Empty if the lines have the keys of examples.
    """

    source: str
    first: int
    lines: Sequence[bytes | dict[str, Any]]
    bytes_read: int
    fields: Mapping[str, str] = field(default_factory=dict)

    def place(self, number: int) -> str:
        """Where a line is, such as "line 7" or "part-2.jsonl, line 7"."""
        return f"{self.source}, line {number}" if self.source else f"line {number}"


def read_windows(location: str | Path, size: int, fields: Mapping[str, str] = NO_FIELDS) -> Iterator[Window]:
    """The lines of all files of a location (see find_files), `size` at a time or fewer. Only one window is in memory.

    fields: see Window.

    JSON Lines, also compressed by gzip or Zstandard, and Parquet. Raises InputError for a file that cannot be read.
    """
    files = find_files(location)
    before = 0
    for file in files:
        name = file.name if len(files) > 1 else ""
        for first, lines, position in _pieces(file, size, fields):
            yield Window(name, first, lines, before + position, fields)
        before += file.size


def input_bytes(location: str | Path) -> int:
    """Size of all files of a location."""
    return sum(file.size for file in find_files(location))


def _pieces(file: InputFile, size: int, fields: Mapping[str, str]) -> Iterator[tuple[int, Sequence[Any], int]]:
    return _table_rows(file, size, fields) if file.name.endswith(TABLE) else _lines(file, size)


def _lines(file: InputFile, size: int) -> Iterator[tuple[int, list[bytes], int]]:
    """Windows of lines: the first line's number, the lines, and how far the file is read."""
    with file.open() as raw, _decompressed(raw, file.name) as text:
        first = 1
        while True:
            lines: list[bytes] = []
            count = 0
            try:
                for line in text:
                    lines.append(line)
                    count += len(line)
                    if len(lines) >= size or count >= WINDOW_BYTES:
                        break
            except (OSError, EOFError, zlib.error) as error:
                raise InputError(
                    f"examples file {file.place}, line {first + len(lines)}: cannot be read ({error})"
                ) from error
            if not lines:
                return
            # Where the file of this machine is, also if a reader of its own has a copy of its number.
            yield first, lines, raw.tell() if file.system else os.lseek(raw.fileno(), 0, os.SEEK_CUR)
            first += len(lines)


@contextmanager
def _decompressed(raw: IO[bytes], name: str) -> Iterator[IO[bytes]]:
    if name.endswith(".gz"):
        with gzip.open(raw) as text:
            yield text  # type: ignore[misc]
    elif name.endswith(".zst"):
        import pyarrow

        with pyarrow.CompressedInputStream(raw, "zstd") as stream:
            yield io.BufferedReader(stream, 1 << 20)
    else:
        yield raw


def _table_rows(
    file: InputFile, size: int, fields: Mapping[str, str]
) -> Iterator[tuple[int, list[dict[str, Any]], int]]:
    """Windows of rows, as `_lines`. Of a table with many columns, only those that `fields` names are read."""
    import pyarrow.parquet

    try:
        with file.open() as raw:
            table = pyarrow.parquet.ParquetFile(raw)
            rows, total, first = table.metadata.num_rows, file.size, 1
            named = {*fields.values(), *(name.partition(".")[0] for name in fields.values())}
            columns = [name for name in table.schema_arrow.names if name in named] if fields else None
            for batch in table.iter_batches(size, columns=columns or None):
                yield first, batch.to_pylist(), total * (first - 1 + len(batch)) // max(rows, 1)
                first += len(batch)
    except pyarrow.ArrowException as error:
        raise InputError(f"examples file {file.place}: is not Parquet, or damaged ({error})") from error
