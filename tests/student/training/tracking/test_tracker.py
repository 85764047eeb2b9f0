"""Files for TensorBoard are written unless a job says otherwise; metrics.jsonl always is. Lines are not repeated."""

import json
from pathlib import Path

import pytest

from student.training.run_files import METRICS, SAMPLES, TENSORBOARD
from student.training.tracking.services import Sample
from student.training.tracking.tracker import Tracker
from tests.student.training.ranks import settings_of


@pytest.mark.parametrize("wanted", [True, False])
def test_files_for_tensorboard_are_optional(tmp_path: Path, wanted: bool) -> None:
    settings = settings_of(tmp_path / "run", tmp_path / "store", tracking={"tensorboard": wanted})
    settings.output.mkdir()
    tracker = Tracker(settings, 0)
    tracker.log_step(1, {"objective": 2.0})
    tracker.close()
    assert (settings.output / TENSORBOARD).exists() == wanted
    assert '"objective": 2.0' in (settings.output / METRICS).read_text()


def test_samples_of_a_continued_run(tmp_path: Path) -> None:
    """A line a step, also for texts with other ends of lines; those after the checkpoint are written again."""
    settings = settings_of(tmp_path / "run", tmp_path / "store", samples={})
    settings.output.mkdir()
    samples = [Sample("a\u2028b\nc", "\x85 d", "")]
    for first, steps in ((0, (0, 1, 2, 3)), (0, (0, 1, 2)), (1, (2, 3))):
        tracker = Tracker(settings, first)
        for step in steps:
            tracker.log_samples(step, samples)
        tracker.close()
    lines = [json.loads(line) for line in (settings.output / SAMPLES).read_text().split("\n") if line]
    assert [line["step"] for line in lines] == [0, 1, 2, 3]
    assert all(line["samples"] == [{"prompt": "a\u2028b\nc", "text": "\x85 d", "reference": ""}] for line in lines)
