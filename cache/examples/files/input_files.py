"""Where examples files lie: on this machine, in an object store (s3://, gs://, az://) or on a hub (hf://datasets/...)."""

import fnmatch
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from cache.errors import InputError, plain_reason
from cache.object_client import client_options

# By the end of a file's name, how it is read. Parquet is a table; the others are lines.
TABLE = ".parquet"
LINES = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".jsonl.zst", ".json.zst")
# Clouds whose paths have a bucket first, by the start of an address.
CLOUDS = ("s3", "gs", "az")
# Bytes that are fetched ahead of the reader.
BLOCK_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file of examples. name: the last part of its path. path: of the file system, or of this machine. size: bytes.
    scheme: of an address, such as "s3".

    system: the file system (fsspec) of an address, None for this machine.
    """

    name: str
    path: str
    size: int
    system: Any = None
    scheme: str = ""

    @property
    def place(self) -> str:
        """Its path or address, for messages."""
        return self.path if self.system is None else f"{self.scheme}://{self.path}"

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Open it for reading. Raises InputError if it cannot be read."""
        try:
            opened = Path(self.path).open("rb") if self.system is None else self.system.open(self.path, "rb")  # noqa: SIM115
        except Exception as error:
            raise InputError(f"examples file {self.place}: cannot be read: {_reason(error)}") from error
        with opened as file:
            yield file


def find_files(location: str | Path) -> list[InputFile]:
    """The files of a location: a file, all examples files of a folder, or those that match a pattern with "*" or "?".

    In the order of their names. Raises InputError if there is none, or if the address cannot be read.
    """
    text = str(location)
    return _remote_files(text) if isinstance(location, str) and "://" in text else _local_files(Path(location))


def _local_files(path: Path) -> list[InputFile]:
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.name.endswith((TABLE, *LINES)))
        if not found:
            raise InputError(f"examples folder {path}: has no file that ends in {', '.join((*LINES, TABLE))}")
    elif any(mark in path.name for mark in "*?[") and not path.exists():
        found = sorted(file for file in path.parent.glob(path.name) if file.is_file())
        if not found:
            raise InputError(f"examples files {path}: no file has such a name")
    elif not path.is_file():
        raise InputError(f"examples file {path}: no such file; give the path of a JSON Lines file")
    else:
        found = [path]
    return [InputFile(file.name, str(file), file.stat().st_size) for file in found]


def _remote_files(address: str) -> list[InputFile]:
    system, path = _file_system(address)
    scheme = address.partition("://")[0]
    folder, _, pattern = path.rstrip("/").rpartition("/")
    has_pattern = any(mark in pattern for mark in "*?[")
    try:
        if not has_pattern and _is_file(entry := system.info(path)):
            return [InputFile(pattern, path, int(entry["size"]), system, scheme)]
        folder, pattern = (folder, pattern) if has_pattern else (path.rstrip("/"), "*")
        listed = system.ls(folder, detail=True)
    except FileNotFoundError:
        listed = []
    except Exception as error:
        raise InputError(f"examples {address}: cannot be read: {_reason(error)}") from error
    found = [
        InputFile(name, entry["name"], int(entry["size"]), system, scheme)
        for entry in listed
        if _is_file(entry)
        and fnmatch.fnmatch(name := entry["name"].rpartition("/")[2], pattern)
        and (pattern != "*" or name.endswith((TABLE, *LINES)))
    ]
    if not found:
        raise InputError(
            f"examples {address}: no such file, and no folder with files that end in {', '.join((*LINES, TABLE))}"
        )
    return sorted(found, key=lambda file: file.path)


def _is_file(entry: dict[str, Any]) -> bool:
    return bool(entry.get("type") == "file")


def _file_system(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it. Raises InputError for an unknown start."""
    scheme, _, path = address.partition("://")
    if scheme == "hf":
        from huggingface_hub import HfFileSystem

        return HfFileSystem(block_size=BLOCK_BYTES), path
    if scheme not in CLOUDS or "@" in path or "?" in path.partition("/")[0]:
        raise InputError(
            f"examples: an address begins with {', '.join(f'{name}://' for name in CLOUDS)} or hf://datasets/ (given "
            f"{scheme}://...)"
        )
    from obstore.fsspec import FsspecStore

    make: Any = FsspecStore  # its types know a call for each scheme
    return make(scheme, client_options=client_options()), path


def _reason(error: Exception) -> str:
    return plain_reason(error) if isinstance(error, OSError | ValueError) else " ".join(str(error).split())
