"""Files in the output folder of a training run. Imports no torch, so that a driver can read them cheaply."""

import errno
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from cache.errors import StoreError

RESULT = "training.json"
METRICS = "metrics.jsonl"
SAMPLES = "samples.jsonl"
TENSORBOARD = "tensorboard"
RANK_LOG = "rank.log"
MODEL = "model"
BEST = "best"
CHECKPOINTS = "checkpoints"
PROGRESS = "progress.json"
FOLLOWED = "followed.json"


# Of checkpoints. 2: weight decay leaves out norms and biases, so the optimizer has two groups of parameters.
FORMAT = 2
# A disk with less space is full: what could not be written is larger.
FULL_BYTES = 1 << 20


@contextmanager
def full_disk_named(folder: Path) -> Iterator[None]:
    """Raise StoreError, which says what to do, for an error that a full disk has caused. Others pass.

    PyTorch says only that a file cannot be written, so the space that is left decides.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        is_full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        if not is_full and shutil.disk_usage(folder).free > FULL_BYTES:
            raise
        raise StoreError(
            f"{folder}: no space is left on the disk; free some, or lower run.keep_checkpoints, and run the same "
            "command again to go on"
        ) from error


def read_followed(output: Path) -> dict[str, Any] | None:
    """What a run that follows its store has noted (student.training.following); None without such a note."""
    path = output / FOLLOWED
    return dict(json.loads(path.read_text())) if path.exists() else None


def checkpoint_folder(checkpoints: Path, step: int) -> Path:
    """Where the checkpoint of a step is."""
    return checkpoints / f"step-{step}"


def complete_checkpoints(checkpoints: Path) -> list[int]:
    """The steps with a complete checkpoint, in order."""
    names = [path.parent.name.removeprefix("step-") for path in checkpoints.glob(f"step-*/{PROGRESS}")]
    return sorted(int(name) for name in names if name.isdecimal())


def read_progress(checkpoints: Path) -> dict[str, Any] | None:
    """Progress of the current checkpoint, or None if there is no checkpoint.

    The current one is what OUTPUT/checkpoints/progress.json names; if a user has removed it, the newest other one.
    """
    path = checkpoints / PROGRESS
    if not path.exists():
        return None
    progress: dict[str, Any] = json.loads(path.read_text())
    others = complete_checkpoints(checkpoints)
    if checkpoint_folder(checkpoints, progress["step"]).exists() or not others:
        return progress
    newest: dict[str, Any] = json.loads((checkpoint_folder(checkpoints, others[-1]) / PROGRESS).read_text())
    return newest


def steps_done(output: Path) -> int:
    """Steps of the current checkpoint: a restart continues after them."""
    progress = read_progress(output / CHECKPOINTS)
    return progress["step"] if progress else 0


def continue_metrics(path: Path, step: int) -> TextIO:
    """Open the metrics file to append to it, without the lines after `step`: the run repeats these steps."""
    lines = path.read_text().split("\n") if path.exists() else []  # a text may contain other ends of lines
    valid = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_text("".join(f"{line}\n" for line in valid))
    draft.replace(path)
    return path.open("a")
