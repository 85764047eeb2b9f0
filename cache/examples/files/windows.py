"""Windows: consecutive lines of an examples file, which can be parsed elsewhere and at the same time."""

import gzip
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from cache.errors import InputError

# By the end of a file's name, how it is read. Parquet is a table; the others are lines.
TABLE = ".parquet"
LINES = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".jsonl.zst", ".json.zst")
# Lines are read in pieces of about so many bytes, whatever their number.
WINDOW_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Window:
    """Lines of one file, not parsed yet.

    source: the file's name if the input has several files, otherwise "". first: number of the first line, from 1.
    lines: JSON as bytes, or rows of a table as dicts. bytes_read: of the file's bytes, how many come before its end.
    """

    source: str
    first: int
    lines: Sequence[bytes | dict[str, Any]]
    bytes_read: int

    def place(self, number: int) -> str:
        """Where a line is, such as "line 7" or "part-2.jsonl, line 7"."""
        return f"{self.source}, line {number}" if self.source else f"line {number}"


def example_files(path: Path) -> list[Path]:
    """The files of a path: a file, all examples files of a folder, or those that match a pattern with "*" or "?".

    In the order of their names. Raises InputError if there is none.
    """
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.name.endswith((TABLE, *LINES)))
        if not found:
            raise InputError(f"examples folder {path}: has no file that ends in {', '.join((*LINES, TABLE))}")
        return found
    if any(mark in path.name for mark in "*?[") and not path.exists():
        found = sorted(file for file in path.parent.glob(path.name) if file.is_file())
        if not found:
            raise InputError(f"examples files {path}: no file has such a name")
        return found
    if not path.is_file():
        raise InputError(f"examples file {path}: no such file; give the path of a JSON Lines file")
    return [path]


def read_windows(path: Path, size: int) -> Iterator[Window]:
    """The lines of all files of a path, `size` at a time or fewer. Only one window is in memory.

    JSON Lines, also compressed by gzip or Zstandard, and Parquet. Raises InputError for a file that cannot be read.
    """
    files = example_files(path)
    before = 0
    for file in files:
        name = file.name if len(files) > 1 else ""
        for first, lines, position in _table_rows(file, size) if file.name.endswith(TABLE) else _lines(file, size):
            yield Window(name, first, lines, before + position)
        before += file.stat().st_size


def input_bytes(path: Path) -> int:
    """Size of all files of a path."""
    return sum(file.stat().st_size for file in example_files(path))


def _lines(file: Path, size: int) -> Iterator[tuple[int, list[bytes], int]]:
    """Windows of lines: the first line's number, the lines, and how far the file is read."""
    with file.open("rb") as raw, _decompressed(raw, file) as text:
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
            except (OSError, EOFError) as error:
                raise InputError(
                    f"examples file {file}, line {first + len(lines)}: cannot be read ({error})"
                ) from error
            if not lines:
                return
            yield first, lines, os.lseek(raw.fileno(), 0, os.SEEK_CUR)
            first += len(lines)


@contextmanager
def _decompressed(raw: IO[bytes], file: Path) -> Iterator[IO[bytes]]:
    if file.name.endswith(".gz"):
        with gzip.open(raw) as text:
            yield text  # type: ignore[misc]
    elif file.name.endswith(".zst"):
        import pyarrow

        with pyarrow.CompressedInputStream(raw, "zstd") as stream:
            yield io.BufferedReader(stream, 1 << 20)
    else:
        yield raw


def _table_rows(file: Path, size: int) -> Iterator[tuple[int, list[dict[str, Any]], int]]:
    """Windows of rows, as `_lines`."""
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(file)
        rows, total, first = table.metadata.num_rows, file.stat().st_size, 1
        for batch in table.iter_batches(size):
            yield first, batch.to_pylist(), total * (first - 1 + len(batch)) // max(rows, 1)
            first += len(batch)
    except pyarrow.ArrowException as error:
        raise InputError(f"examples file {file}: is not Parquet, or damaged ({error})") from error
