"""The job files of a run of `logitbank step-by-step` belong to the work beside them, also after a refused rerun."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cache.errors import InputError
from cluster.runtime.job_messages import read_toml
from cluster.runtime.outputs import JOB

Jobs = Mapping[str, Mapping[str, Any]]


def require_no_other_work(files: Mapping[str, Path], jobs: Jobs, root: Path) -> None:
    """Raise InputError if a file is that of work which is there, and the job of now is another one.

    files, jobs: by the name of the job. root: folder of the relative paths of the jobs.
    """
    for name, path in files.items():
        if _record(jobs[name], root).exists() and path.exists() and read_toml(path) != jobs[name]:
            raise InputError(
                f"{path}: is the job file of the work in {jobs[name]['output']}, and these options make another job; "
                "give another --output_dir, or remove that folder"
            )


@contextmanager
def restored_if_refused(files: Mapping[str, Path], jobs: Jobs, root: Path) -> Iterator[None]:
    """Write and run jobs inside. If that fails, files of work that is not of these jobs get their former content.

    A job that is accepted writes its record into its output. If the record is the one of before, the file must be too.
    """
    records = {name: _record(jobs[name], root) for name in files}
    former = {name: (_content(path), _content(records[name])) for name, path in files.items()}
    try:
        yield
    except BaseException:  # an interrupted command may not have reached the later jobs
        for name, path in files.items():
            text, record = former[name]
            if text is not None and record is not None and _content(records[name]) == record:
                path.write_bytes(text)
        raise


def _record(job: Mapping[str, Any], root: Path) -> Path:
    """The file in which an output says of which job it is."""
    return root / str(job["output"]) / JOB


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
