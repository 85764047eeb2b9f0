"""Files that a command writes beside its output: the resolved job. Each is written completely or not at all."""

import fcntl
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cache.errors import InputError, plain_reason
from cache.json_documents import write_json
from cache.settings import Settings
from cache.store.commits import SPEC

JOB = "job.json"
LOCK = ".lock"


def read_json(path: Path) -> Any:
    """Content of a JSON file. Raises InputError if it is missing or not valid JSON."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run the command that makes it first") from None
    except ValueError as error:
        raise InputError(f"{path}: {plain_reason(error)}; restore it, or remove it") from None


def require_output_folder(output: Path) -> None:
    """Raise InputError if `output` is a file or a store. Only a store may be in a store's folder."""
    if output.exists() and not output.is_dir():
        raise InputError(f"output {output}: is a file; give a folder")
    if (output / SPEC).is_file():
        raise InputError(f"output {output}: is a store; give another folder")


@contextmanager
def locked(output: Path) -> Iterator[None]:
    """Let no other process work in `output` meanwhile. Raises InputError that names the process that does.

    The lock ends with the process, however that ends. A file system without locks has none.
    """
    output.mkdir(parents=True, exist_ok=True)
    with (output / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise InputError(f"{output}: {holder} works in it; wait for its end, or give another output") from None
        except OSError:
            yield
            return
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def claim(output: Path, job: Settings, holds_work: bool, changeable: frozenset[str] = frozenset()) -> None:
    """Make `output` the folder of this job. Raises InputError, naming the keys, if it `holds_work` of another job.

    A job that failed before it did anything may be corrected and run again. changeable: as in `require_same_job`.
    """
    if holds_work:
        require_same_job(output, job, changeable)
    write_job(output, job)


def require_same_job(output: Path, job: Settings, changeable: frozenset[str] = frozenset()) -> None:
    """Raise InputError, naming the keys, if `output` belongs to a job with other settings. Writes nothing.

    changeable: keys and whole tables, such as "run.ranks" and "models", that may differ.
    """
    path = output / JOB
    if path.exists():
        require_same_document(read_json(path), output, job, changeable)


def require_same_document(
    document: Mapping[str, Any],
    where: object,
    job: Settings,
    changeable: frozenset[str] = frozenset(),
    fix: str = "give another output, or remove the folder",
) -> None:
    """Raise InputError, naming the keys, if the job of `where` has other settings. document: of its job.json.

    An earlier version may have written it: keys that it did not know have their defaults.
    """
    try:
        known = type(job).model_validate(document).model_dump(mode="json")
    except ValidationError:  # it has keys that this version does not know, which are differences
        known = dict(document)
    differences = _differences(known, job.model_dump(mode="json"))
    changed = [message for key, message in differences if not _is_in(key, changeable)]
    if changed:
        raise InputError(f"{where} contains the work of a job with other settings ({'; '.join(changed)}); {fix}")


def write_job(output: Path, job: Settings) -> None:
    """Record the job that `output` belongs to."""
    write_json(output / JOB, job.model_dump(mode="json"))


def _is_in(key: str, tables: frozenset[str]) -> bool:
    return any(key == table or key.startswith(f"{table}.") for table in tables)


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Keys that differ, each with its old and new value in words."""
    differences = []
    for key in sorted(set(old) | set(new)):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            differences += _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            differences.append((f"{prefix}{key}", f"{prefix}{key}: was {before!r}, now {after!r}"))
    return differences
