"""A progress bar over the steps of a run, from the metrics file that rank 0 writes."""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

from cache.errors import StoreError
from cluster.runtime.metrics import Metrics
from cluster.runtime.progress_bars import bar
from student.training.run_files import METRICS, steps_done
from student.training.settings import TrainSettings

# Between two looks elsewhere.
ELSEWHERE_SECONDS = 30.0
Line = dict[str, Any] | None


class StepProgress:
    """Shows steps, loss and speed. The bar appears with the first new step. watch: called with every update.

    elsewhere: gives the last line of metrics while the folder has none, because the ranks run on other machines.
    """

    def __init__(
        self, settings: TrainSettings, watch: Callable[[], None], elsewhere: Callable[[], Line] = lambda: None
    ) -> None:
        self._settings, self._steps_before, self._watch = settings, steps_done(settings.output), watch
        self._elsewhere, self._looked = elsewhere, time.monotonic()
        self._seen: Line = None
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
            last = self._line_from_elsewhere()
        if last is None or last["step"] <= self._steps_before:
            return
        self._metrics.show(last)
        if self._bar is None:
            self._bar = bar(self._settings.output.name, self._settings.run.total_steps, "steps", initial=last["step"])
        rate = last["tokens"] / last["seconds"]
        loss = "not finite" if last["objective"] is None else f"{last['objective']:.3f}"
        mfu = f", MFU {last['mfu']:.1%}" if "mfu" in last else ""
        self._bar.set_postfix_str(f"loss {loss}, {rate:,.0f} tokens/s{mfu}", refresh=False)
        self._bar.update(last["step"] - self._bar.n)

    def _line_from_elsewhere(self) -> Line:
        """The last line that was seen there. A service that cannot be reached is asked again later."""
        if time.monotonic() - self._looked > ELSEWHERE_SECONDS:
            self._looked = time.monotonic()
            with suppress(StoreError):
                self._seen = self._elsewhere() or self._seen
        return self._seen


def last_line(path: Path) -> Line:
    """The newest complete line of a JSON Lines file, or None if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 4096))
            return last_line_of(file.read())
    except FileNotFoundError:
        return None


def last_line_of(data: bytes) -> Line:
    """The newest complete line of the end of a JSON Lines file, or None if there is none."""
    lines = data.split(b"\n")[:-1]
    try:
        return dict(json.loads(lines[-1])) if lines else None
    except ValueError:
        return None
