"""Files for TensorBoard are written unless a job says otherwise; metrics.jsonl always is."""

from pathlib import Path

import pytest

from student.training.run_files import METRICS, TENSORBOARD
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
