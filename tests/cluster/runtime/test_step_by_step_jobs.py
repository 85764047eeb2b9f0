"""The job files of step-by-step distillation are valid jobs."""

from pathlib import Path
from typing import Any

import pytest

from cluster.capture.settings import CaptureSettings
from cluster.evaluation.settings import EvaluateSettings, ExamplesSettings
from cluster.report.settings import ReportSettings
from cluster.runtime.job_file import load_job
from student.training.settings import TrainSettings

JOBS = Path(__file__).resolve().parents[3] / "cluster" / "jobs" / "step_by_step"
KINDS: dict[str, Any] = {
    **dict.fromkeys(("examples", "transfer", "gt", "questions", "svamp"), ExamplesSettings),
    **dict.fromkeys(("explain", "heldout", "ask"), CaptureSettings),
    **dict.fromkeys(("teacher", "student"), TrainSettings),
    "evaluate": EvaluateSettings,
    "report": ReportSettings,
}


def test_every_job_file_is_tested() -> None:
    assert {path.stem for path in JOBS.glob("*.toml")} == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_a_job_file_is_valid(tmp_path: Path, name: str) -> None:
    load_job(JOBS / f"{name}.toml", [], KINDS[name], tmp_path)
