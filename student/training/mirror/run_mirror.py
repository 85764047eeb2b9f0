"""The copy of a run's folder at an address: what it contains, and how a folder gets it.

    MIRROR/job.json, plan/                       the job, from its start on
    MIRROR/checkpoints/step-N-START/             files of a checkpoint, each sent by the rank that wrote it
    MIRROR/checkpoints/step-N-START/sent-RANK    the rank has sent all of its files; their names and bytes
    MIRROR/checkpoints/owner.json                the start that writes to the mirror: earlier ones stop once they see it
    MIRROR/best/step-N/                          the best student, as of the checkpoint
    MIRROR/checkpoints/progress.json             the current checkpoint; written last, so all that it names is there
    MIRROR/metrics.jsonl, samples.jsonl, followed.json, tensorboard/, model/, training.json
                                                 as in the folder, as of the checkpoint or of the end

START is a name of the start of the ranks: a checkpoint never has files of two of them.
"""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cache.json_documents import write_json
from cache.storage.remote_folder import RemoteFolder
from student.training.planning.plan import PLAN
from student.training.run_files import (
    BEST,
    CHECKPOINTS,
    FOLLOWED,
    METRICS,
    MODEL,
    PROGRESS,
    RESULT,
    SAMPLES,
    TENSORBOARD,
    checkpoint_folder,
    steps_done,
)

JOB = "job.json"
# What rank 0 sends with each checkpoint, and at the end.
WITH_CHECKPOINTS = (METRICS, SAMPLES, FOLLOWED, TENSORBOARD)
AT_END = (*WITH_CHECKPOINTS, MODEL)
# What a machine of ranks needs besides a checkpoint.
RECORD = (JOB, PLAN, *AT_END)


class RunMirror:
    """The mirror of one run. Every call raises StoreError if the service refuses."""

    def __init__(self, output: Path, uri: str) -> None:
        self.output, self.files = output, RemoteFolder(uri)

    def __str__(self) -> str:
        return str(self.files)

    def document(self, name: str) -> dict[str, Any] | None:
        """The content of a JSON file; None if there is none."""
        data = self.files.read(name)
        return None if data is None else dict(json.loads(data))

    def progress(self) -> dict[str, Any] | None:
        """Progress of the current checkpoint, with the name of its folder as `copy`; None before the first."""
        return self.document(f"{CHECKPOINTS}/{PROGRESS}")

    def is_ahead(self) -> bool:
        """Whether the mirror has more of the run than the folder."""
        is_complete = (self.output / RESULT).exists()
        return _is_ahead(self.progress(), self.document(RESULT), steps_done(self.output), is_complete)

    def fetch_record(self) -> None:
        """Bring all but checkpoints into the folder.

        The folder then says how far the run is; the ranks fetch the checkpoint itself, where they are.
        """
        progress, result = self.progress(), self.document(RESULT)
        for name in RECORD:
            self.fetch(name)
        job = self.output / JOB
        if job.exists():  # this run is the folder's, wherever it was before
            write_json(job, {**json.loads(job.read_text()), "output": str(self.output)})
        if progress is not None:
            checkpoints = self.output / CHECKPOINTS
            checkpoint_folder(checkpoints, progress["step"]).mkdir(parents=True, exist_ok=True)
            write_json(checkpoints / PROGRESS, progress)
        if result is not None:
            write_json(self.output / RESULT, result)

    def fetch(self, name: str, target: Path | None = None) -> None:
        """Bring a file, or a folder in place of the one that is there, from the mirror. What it lacks stays."""
        path = target or self.output / name
        found = self.files.sizes(name)
        if found:
            shutil.rmtree(path, ignore_errors=True)
            for each in found:
                self.files.download(each, path / each.removeprefix(f"{name}/"))
        elif (data := self.files.read(name)) is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def send(self, names: Iterable[str]) -> None:
        """Copy files and folders to the mirror. What the folder lacks, or no longer has, is removed there."""
        for name in names:
            self.send_folder(self.output / name, name)

    def send_folder(self, source: Path, name: str) -> None:
        """Copy a folder, or a file, to the mirror under a name."""
        before = self.files.sizes(name)
        files = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else []
        sent = {f"{name}/{path.relative_to(source).as_posix()}": path for path in files}
        for target, path in sent.items():
            self.files.upload(target, path)
        if source.is_file():
            self.files.upload(name, source)
        self.files.remove([each for each in before if each not in sent])

    def send_job(self) -> None:
        """Copy what every rank needs before its first step: the job and the plan."""
        self.send([PLAN, JOB])

    def send_result(self) -> None:
        """Copy the end of the run. training.json comes last: the run counts as complete once it is there."""
        self.send([*AT_END, RESULT])

    def lacks_end(self) -> bool:
        """Whether the folder has an end of the run that the mirror does not have."""
        path, other = self.output / RESULT, self.document(RESULT)
        return path.exists() and (other is None or other["steps"] < json.loads(path.read_text())["steps"])

    def fetch_best(self, step: int) -> None:
        """Bring the best student of the current checkpoint into the folder."""
        self.fetch(f"{BEST}/step-{step}", self.output / BEST)


def _is_ahead(progress: dict[str, Any] | None, result: dict[str, Any] | None, done: int, is_complete: bool) -> bool:
    """Whether the mirror has more of a run than a folder with `done` steps."""
    if result is not None and result["steps"] >= done and (not is_complete or result["steps"] > done):
        return True
    return progress is not None and bool(progress["step"] > done)
