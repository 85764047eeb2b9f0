"""Tracker: one JSON line a step, samples of text, and the services of the job."""

import json
import math
from collections.abc import Sequence
from typing import Any

from student.training.run_files import METRICS, SAMPLES, continue_metrics
from student.training.settings import TrainSettings
from student.training.tracking.services import Sample, open_services


class Tracker:
    """Logs what rank 0 knows of a run. first: the number of steps done before; a continued run appends to its files."""

    def __init__(self, settings: TrainSettings, first: int) -> None:
        self._lines = continue_metrics(settings.output / METRICS, first)
        self._has_lines = self._lines.tell() > 0
        self._samples = continue_metrics(settings.output / SAMPLES, first) if settings.samples is not None else None
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

    def log_samples(self, step: int, samples: Sequence[Sample]) -> None:
        """Write all samples of a step in one line of samples.jsonl: a kill leaves all of them or none.

        Those of step 0 are not repeated by a later start of this run.
        """
        if self._samples is None or (step == 0 and self._samples.tell() > 0):
            return
        document = {"step": step, "samples": [sample._asdict() for sample in samples]}
        self._samples.write(json.dumps(document, ensure_ascii=False) + "\n")
        self._samples.flush()
        for service in self._services:
            service.log_samples(step, samples)

    def close(self) -> None:
        """Close the files and the services."""
        self._lines.close()
        if self._samples is not None:
            self._samples.close()
        for service in self._services:
            service.close()


def finite_or_none(value: float) -> float | None:
    """The value, or None for one that JSON cannot express."""
    return value if math.isfinite(value) else None
