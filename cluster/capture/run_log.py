"""The capture log: a JSON file beside a store that records what each run of a capture job did."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.json_documents import write_json
from cluster.capture.input.input_summary import InputSummary
from cluster.capture.input.planned_input import PlannedInput
from cluster.capture.settings import CaptureSettings
from cluster.runtime.hardware import hardware
from cluster.runtime.outputs import read_json

if TYPE_CHECKING:  # imports torch
    from teacher_serving.capture.unit import UnitSummary


class RunLog:
    """Counts rows, seconds and cost of this run, and writes them to the log together with those of earlier runs."""

    def __init__(self, settings: CaptureSettings) -> None:
        self._path = capture_log_path(settings.store)
        self._job = settings.model_dump(mode="json")
        self._hardware = hardware()
        self._earlier: list[dict[str, Any]] = read_json(self._path)["runs"] if self._path.exists() else []
        self._started = 0.0
        self._input: dict[str, Any] = {}
        self.truncated = 0
        self.examples = self.rows = self.refused = self.bytes = 0
        self.without_rows = 0
        self.stopped = ""
        self.rows_from: list[str] = []
        self.seconds = self.start_seconds = self.cost = 0.0

    def set_input(self, known: PlannedInput, planned: int, is_complete: bool) -> None:
        """What is known of the examples file. planned: examples of the whole job; an estimate until it is read."""
        self.truncated = known.truncated
        self._input = {"planned": planned, "input": asdict(known.summary), "input_is_complete": is_complete}

    @property
    def elapsed(self) -> float:
        """Seconds since `begin`; 0 before it."""
        return time.monotonic() - self._started if self._started else 0.0

    def begin(self) -> None:
        """Start the clock. Called when all engines are ready."""
        self._started = time.monotonic()

    def add(self, summary: "UnitSummary") -> None:
        """Add the summary of a unit and write the log."""
        self.seconds = time.monotonic() - self._started
        self.refused += summary.refused
        self.without_rows += summary.without_rows
        self.stopped = self.stopped or summary.stopped
        self.cost += summary.cost
        if summary.rows_from and summary.rows_from not in self.rows_from:
            self.rows_from.append(summary.rows_from)
        if summary.is_committed:
            self.examples += summary.examples
            self.rows += summary.rows
            self.bytes += summary.bytes
        counts = ("examples", "rows", "refused", "truncated", "seconds", "start_seconds", "cost")
        names = (*counts, "rows_from", "without_rows", "stopped")
        run = {name: getattr(self, name) for name in names}
        document = {"job": self._job, "hardware": self._hardware, **self._input}
        write_json(self._path, {**document, "runs": [*self._earlier, run]})

    def update_input(self) -> None:
        """Write what the lines of the examples file are now, where an earlier run has written a log."""
        if self._path.exists():
            write_json(self._path, {**read_json(self._path), **self._input})


def last_input(store: str) -> InputSummary | None:
    """What became of the lines of the examples file at the last capture; None without a log of it."""
    path = capture_log_path(store)
    lines = read_json(path).get("input") if path.exists() else None
    return InputSummary(**lines) if lines else None


def capture_log_path(store: str) -> Path:
    """Return the path of the capture log: beside a store that is a folder, otherwise in the working folder."""
    path = Path(store.partition("://")[2].replace("/", "-") if "://" in store else store)
    return path.with_name(f"{path.name}.capture.json")
