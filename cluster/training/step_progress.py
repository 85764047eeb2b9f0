"""A progress bar over the steps of a run, from the metrics file that rank 0 writes."""

import json
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

from cluster.runtime.metrics import Metrics
from cluster.runtime.progress_bars import bar
from student.training.run_files import METRICS, steps_done
from student.training.settings import TrainSettings


class StepProgress:
    """Shows steps, loss and speed. The bar appears with the first new step. watch: called with every update."""

    def __init__(self, settings: TrainSettings, watch: Callable[[], None]) -> None:
        self._settings, self._steps_before, self._watch = settings, steps_done(settings.output), watch
        self._metrics = Metrics("training", str(settings.output))
        self._bar: tqdm[Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self) -> None:
        """Read the newest metrics and draw them."""
        self._watch()
        last = last_line(self._settings.output / METRICS)
        if last is None or last["step"] <= self._steps_before:
            return
        self._metrics.show(last)
        if self._bar is None:
            self._bar = bar(self._settings.output.name, self._settings.run.total_steps, "steps", initial=last["step"])
        rate = last["tokens"] / last["seconds"]
        loss = "not finite" if last["objective"] is None else f"{last['objective']:.3f}"
        self._bar.set_postfix_str(f"loss {loss}, {rate:,.0f} tokens/s", refresh=False)
        self._bar.update(last["step"] - self._bar.n)


def last_line(path: Path) -> dict[str, Any] | None:
    """The newest complete line of a JSON Lines file, or None if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 4096))
            lines = file.read().split(b"\n")[:-1]
        return dict(json.loads(lines[-1])) if lines else None
    except (FileNotFoundError, ValueError):
        return None
