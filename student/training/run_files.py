"""What a training run leaves in its output folder, by name. Imports no torch, so that a driver can look cheaply."""

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
    """Progress of the checkpoint that counts, or None where there is none."""
    path = checkpoints / PROGRESS
    return json.loads(path.read_text()) if path.exists() else None


def steps_done(output: Path) -> int:
    """Steps that a restart would not repeat."""
    progress = read_progress(output / CHECKPOINTS)
    return progress["step"] if progress else 0


def continue_metrics(path: Path, step: int) -> TextIO:
    """The metrics file with all lines after `step` cut off: they belong to work that is done anew."""
    lines = path.read_text().splitlines() if path.exists() else []
    kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_text("".join(f"{line}\n" for line in kept))
    draft.replace(path)
    return path.open("a")
