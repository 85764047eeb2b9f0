"""Metrics of a run: a JSON line a step, TensorBoard, and Weights & Biases where it is asked for."""

import importlib
import json
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from cache.errors import InputError
from student.training.run_files import METRICS, TENSORBOARD, continue_metrics
from student.training.settings import TrainSettings


class Tracker:
    """Takes the metrics of rank 0. A run that continues writes on from its first new step."""

    def __init__(self, settings: TrainSettings, first: int) -> None:
        self._lines = continue_metrics(settings.output / METRICS, first)
        # Of what an interrupted run wrote, TensorBoard hides the steps that are done anew.
        self._board = SummaryWriter(str(settings.output / TENSORBOARD), purge_step=first + 1)
        self._wandb = _start_wandb(settings) if settings.tracking.wandb else None

    def step(self, step: int, values: dict[str, Any]) -> None:
        """One line; what is no number is left to the file."""
        self._lines.write(json.dumps({"step": step, **values}) + "\n")
        self._lines.flush()
        numbers = {name: float(value) for name, value in values.items() if isinstance(value, int | float)}
        for name, value in numbers.items():
            self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(numbers, step=step)

    def close(self) -> None:
        self._lines.close()
        self._board.close()
        if self._wandb is not None:
            self._wandb.finish()


def require_wandb() -> Any:
    """The library. Raises InputError with the command that installs it."""
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
