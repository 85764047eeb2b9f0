"""Files in the output folder of a training run. Imports no torch, so that a driver can read them cheaply."""

import json
from pathlib import Path
from typing import Any, TextIO

RESULT = "training.json"
METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"
MODEL = "model"
BEST = "best"
CHECKPOINTS = "checkpoints"
PROGRESS = "progress.json"


def read_progress(checkpoints: Path) -> dict[str, Any] | None:
    """Progress of the current checkpoint, or None if there is no checkpoint."""
    path = checkpoints / PROGRESS
    return json.loads(path.read_text()) if path.exists() else None


def steps_done(output: Path) -> int:
    """Steps of the current checkpoint: a restart continues after them."""
    progress = read_progress(output / CHECKPOINTS)
    return progress["step"] if progress else 0


def continue_metrics(path: Path, step: int) -> TextIO:
    """Open the metrics file to append to it, without the lines after `step`: the run repeats these steps."""
    lines = path.read_text().splitlines() if path.exists() else []
    valid = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_text("".join(f"{line}\n" for line in valid))
    draft.replace(path)
    return path.open("a")
