"""Metrics of a run: one JSON line a step, and optionally TensorBoard and Weights & Biases."""

import importlib
import json
import math
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from cache.errors import InputError
from student.training.run_files import METRICS, TENSORBOARD, continue_metrics
from student.training.settings import TrainSettings


class Tracker:
    """Logs the metrics of rank 0. first: the number of steps done before; a continued run appends to its files."""

    def __init__(self, settings: TrainSettings, first: int) -> None:
        self._lines = continue_metrics(settings.output / METRICS, first)
        self._has_lines = self._lines.tell() > 0
        # TensorBoard hides what an interrupted run logged for the steps that are repeated.
        folder = str(settings.output / TENSORBOARD)
        self._board = SummaryWriter(folder, purge_step=first + 1) if settings.tracking.tensorboard else None
        self._wandb = _start_wandb(settings) if settings.tracking.wandb else None

    def log_start(self, values: dict[str, Any]) -> None:
        """Write the line of step 0, unless an earlier start of this run has."""
        if not self._has_lines:
            self.log_step(0, values)

    def log_step(self, step: int, values: dict[str, Any]) -> None:
        """Write one line, with null for a value that is not finite. TensorBoard and others get only finite numbers."""
        finite = {name: finite_or_none(value) if isinstance(value, float) else value for name, value in values.items()}
        self._lines.write(json.dumps({"step": step, **finite}) + "\n")
        self._lines.flush()
        numbers = {name: float(value) for name, value in finite.items() if isinstance(value, int | float)}
        if self._board is not None:
            for name, value in numbers.items():
                self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(numbers, step=step)

    def close(self) -> None:
        """Close all files."""
        self._lines.close()
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()


def finite_or_none(value: float) -> float | None:
    """The value, or None for one that JSON cannot express."""
    return value if math.isfinite(value) else None


def require_wandb() -> Any:
    """Import the library. Raises InputError with the command that installs it."""
    try:
        return importlib.import_module("wandb")
    except ImportError as error:
        raise InputError(
            f"tracking.wandb: Weights & Biases is not installed; run `pip install wandb` ({error})"
        ) from None


def _start_wandb(settings: TrainSettings) -> Any:
    output: Path = settings.output
    return require_wandb().init(
        project=settings.tracking.wandb,
        name=output.name,
        dir=str(output),
        config=settings.model_dump(mode="json"),
        resume="allow",
        id=f"{output.parent.name}-{output.name}",
    )
