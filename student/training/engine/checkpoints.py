"""The checkpoints of a run: which of them is current, and which are kept.

    OUTPUT/checkpoints/step-N/                 what DeepSpeed wrote after step N
    OUTPUT/checkpoints/step-N/progress.json    how far the run was; written last, so the checkpoint is complete
    OUTPUT/checkpoints/progress.json           the same of the current one

A run continues from the current checkpoint. If its folder is removed, the newest of the others is current.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from cache.errors import InputError
from cache.json_documents import write_json
from student.training.engine.config import effective_stage
from student.training.run_files import FORMAT, PROGRESS, checkpoint_folder, complete_checkpoints, read_progress
from student.training.run_settings import OptimizerSettings, RunSettings


def commit_checkpoint(folder: Path, step: int, progress: dict[str, Any], keep: int) -> None:
    """Make the checkpoint of a step the current one, and remove all but the newest `keep`. Call it on one rank."""
    document = {"format": FORMAT, "step": step, **progress}
    write_json(checkpoint_folder(folder, step) / PROGRESS, document)
    write_json(folder / PROGRESS, document)
    remove_older(folder, step, keep)


def remove_unfinished(folder: Path, step: int) -> None:
    """Remove what a killed save of this step has left: maybe files of more ranks than will write it now.

    Call it on one rank of each machine. A save never repeats the step of the current checkpoint.
    """
    for name in (checkpoint_folder(folder, step).name, universal_checkpoint(folder, step)):
        shutil.rmtree(folder / name, ignore_errors=True)


def remove_older(folder: Path, step: int, keep: int) -> None:
    """Remove all checkpoints but the newest `keep` up to a step, and unfinished ones. Call it on one rank."""
    earlier = [each for each in complete_checkpoints(folder) if each <= step]
    kept = {checkpoint_folder(folder, each).name for each in earlier[-keep:]}
    for old in folder.glob("step-*"):
        if old.name.removesuffix("-universal") not in kept:
            shutil.rmtree(old, ignore_errors=True)


def require_known_format(folder: Path) -> None:
    """Raise InputError if an earlier version of logitbank wrote the checkpoint, which this one cannot continue."""
    progress = read_progress(folder)
    if progress is not None and progress.get("format") != FORMAT:
        raise InputError(
            f"{folder}: these checkpoints are of an earlier version of logitbank, which gave weight decay to norms and "
            "biases; train into another output, or remove this folder to start again"
        )


def require_continuable(folder: Path, optimizer: OptimizerSettings, run: RunSettings, ranks: int) -> None:
    """Raise InputError if the current checkpoint cannot be continued on so many ranks.

    A partitioned optimizer belongs to a number of ranks. DeepSpeed's form for any number knows that of AdamW alone.
    """
    progress = read_progress(folder)
    if (
        optimizer.name == "adamw"
        or progress is None
        or progress["ranks"] == ranks
        or not effective_stage(run, optimizer)
    ):
        return
    raise InputError(
        f"{folder}: a run with optimizer.name = {optimizer.name!r} continues with the number of ranks that it had, "
        f"{progress['ranks']}, and not with {ranks}; set run.ranks = {progress['ranks']}"
    )


def universal_checkpoint(folder: Path, step: int) -> str:
    """The name of the checkpoint in DeepSpeed's format for any number of ranks."""
    return f"{checkpoint_folder(folder, step).name}-universal"


def make_universal(folder: Path, step: int) -> None:
    """Convert a checkpoint to this format, unless that was done before. Call it on one rank."""
    source, target = checkpoint_folder(folder, step), folder / universal_checkpoint(folder, step)
    if target.exists():
        return
    draft = target.with_name(f".{target.name}")
    shutil.rmtree(draft, ignore_errors=True)
    command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal"]
    options = ["--input_folder", str(source), "--output_folder", str(draft), "--inject_missing_state"]
    process = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    if process.returncode:
        raise InputError(f"{source}: cannot be converted for another number of ranks: {process.stderr[-500:]}")
    draft.rename(target)
