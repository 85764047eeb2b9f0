"""Steps and losses that are not finite: counted, written as JSON, and the end of a run that has only them."""

import json
from pathlib import Path

import pytest

from student.training.engine.checkpoints import commit_checkpoint
from student.training.engine.skipped_steps import DivergenceError, refuse_divergence
from student.training.heldout_loss import BestStudent
from student.training.run_settings import RunSettings
from student.training.tracking.tracker import Tracker
from tests.student.training.ranks import settings_of

NAN, INF = float("nan"), float("inf")


def run(steps: int = 20) -> RunSettings:
    return RunSettings(steps=steps, max_skipped_steps=3)


def test_a_run_ends_after_skipped_steps_in_a_row(tmp_path: Path) -> None:
    """The message names the steps, the setting and the checkpoint that stays."""
    refuse_divergence(9, 2, run(), tmp_path)
    with pytest.raises(DivergenceError, match=r"steps 7 to 9: .*run.max_skipped_steps = 3.* no checkpoint exists"):
        refuse_divergence(9, 3, run(), tmp_path)
    (tmp_path / "step-6").mkdir()
    commit_checkpoint(tmp_path, 6, {}, 1)
    with pytest.raises(DivergenceError, match=r"last good checkpoint is .*step-6"):
        refuse_divergence(9, 3, run(), tmp_path)


def test_a_short_run_that_learned_nothing_is_an_error(tmp_path: Path) -> None:
    """Shorter than max_skipped_steps. Would catch an untrained student that is saved as if it were trained."""
    refuse_divergence(1, 1, run(2), tmp_path)
    refuse_divergence(2, 1, run(2), tmp_path)
    with pytest.raises(DivergenceError, match=r"steps 1 to 2: .* nothing was learned"):
        refuse_divergence(2, 2, run(2), tmp_path)


@pytest.mark.parametrize("first", [NAN, INF])
def test_a_loss_that_is_not_finite_is_never_the_best(first: float) -> None:
    """Would catch a student whose held-out loss is NaN, saved because it was the first one."""
    best = BestStudent().after_evaluation(10, first)
    assert (best.step, best.loss, best.evaluations_since) == (None, None, 1)
    best = best.after_evaluation(20, 3.0)
    assert (best.step, best.loss, best.evaluations_since) == (20, 3.0, 0)
    assert best.after_evaluation(30, first) == BestStudent(20, 3.0, 1)
    # As an earlier version stored it.
    assert BestStudent(10, first, 0).after_evaluation(20, 5.0).step == 20


def test_metrics_are_valid_json(tmp_path: Path) -> None:
    """JSON has neither NaN nor Infinity. Would catch a file that other programs cannot read."""
    tracker = Tracker(settings_of(tmp_path, tmp_path), 0)
    tracker.log_step(1, {"objective": NAN, "gradient_norm": None, "hard_label": INF, "lr": 0.5, "skipped_steps": 1})
    tracker.close()

    def refuse(name: str) -> None:
        raise AssertionError(name)

    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line, parse_constant=refuse) == {
        "step": 1,
        "objective": None,
        "gradient_norm": None,
        "hard_label": None,
        "lr": 0.5,
        "skipped_steps": 1,
    }
