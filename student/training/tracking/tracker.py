"""Tracker: one JSON line a step, and the services of the job."""

import json
import math
from typing import Any

from student.training.run_files import METRICS, continue_metrics
from student.training.settings import TrainSettings
from student.training.tracking.services import open_services


class Tracker:
    """Logs the metrics of rank 0. first: the number of steps done before; a continued run appends to its files."""

    def __init__(self, settings: TrainSettings, first: int) -> None:
        self._lines = continue_metrics(settings.output / METRICS, first)
        self._has_lines = self._lines.tell() > 0
        self._services = open_services(settings, first)

    def log_start(self, values: dict[str, Any]) -> None:
        """Write the line of step 0, unless an earlier start of this run has."""
        if not self._has_lines:
            self.log_step(0, values)

    def log_step(self, step: int, values: dict[str, Any]) -> None:
        """Write one line, with null for a value that is not finite. Services get only finite numbers."""
        finite = {name: finite_or_none(value) if isinstance(value, float) else value for name, value in values.items()}
        self._lines.write(json.dumps({"step": step, **finite}) + "\n")
        self._lines.flush()
        numbers = {name: float(value) for name, value in finite.items() if isinstance(value, int | float)}
        for service in self._services:
            service.log(step, numbers)

    def close(self) -> None:
        """Close the file and the services."""
        self._lines.close()
        for service in self._services:
            service.close()


def finite_or_none(value: float) -> float | None:
    """The value, or None for one that JSON cannot express."""
    return value if math.isfinite(value) else None
