"""The files from which something was made: whether they are still the same."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cache.errors import InputError

# Size in bytes, time of the last change in seconds, SHA-256 of the content in hexadecimal.
FileState = tuple[int, float, str]


def file_states(values: Any) -> dict[str, FileState]:
    """The state of each file among the values of a job's settings. A folder stands for the files below it."""
    files = (file for path in _paths(values) for file in (sorted(path.rglob("*")) if path.is_dir() else [path]))
    return {str(file): _state(file) for file in files if file.is_file()}


def require_unchanged(before: Mapping[str, Any], output: Path) -> None:
    """Raise InputError if a file has another content than when `output` was made of it. One that is gone is no change.

    before: what `file_states` gave then.
    """
    for name, (size, changed_at, digest) in before.items():
        file = Path(name)
        if not file.is_file():
            continue
        stat = file.stat()
        if (stat.st_size, stat.st_mtime) != (size, changed_at) and (stat.st_size != size or _state(file)[2] != digest):
            raise InputError(
                f"{name}: changed since {output} was made of it; remove that folder, or give another output"
            )


def _state(file: Path) -> FileState:
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    stat = file.stat()
    return stat.st_size, stat.st_mtime, digest


def _paths(values: Any) -> Iterator[Path]:
    if isinstance(values, Path):
        yield values
    elif isinstance(values, Mapping):
        yield from (path for value in values.values() for path in _paths(value))
    elif isinstance(values, list | tuple):
        yield from (path for value in values for path in _paths(value))
