"""Runs whose steps have a number of tokens, on one and two ranks: the same losses, also after a continuation."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.student.training.ranks import MIX, TOPK, Job, curve, make_store, metrics, settings_of, start

pytestmark = pytest.mark.slow
# The limit of the positions of a micro-batch lets it have one to four examples.
BY_TOKENS = {"batch_size": None, "batch_tokens": 90, "micro_batch_size": None, "steps": 10}
POSITIONS = {"micro_batch_tokens": 34}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("tokens")
    store = make_store(root / "store", tiny_model, TOPK, 19)

    def job(name: str, ranks: int, after: bool = False, **sections: Any) -> Job:
        run = BY_TOKENS | {"ranks": ranks, "zero_stage": 1} | sections.pop("run", {})
        settings = settings_of(root / name, store, loss=MIX, run=run, **sections)
        return Job(settings, root / name if after else None)

    one = [
        job("whole", 1),
        job("positions", 1, run=POSITIONS),
        job("packed", 1, data={"pack_to": 40}),
        job("cut", 1, run={"steps": 4}),
        job("cut", 1, after=True),
        job("epochs", 1, run={"steps": None, "epochs": 3}),
    ]
    two = [
        *(job(f"two-{stage}", 2, run=POSITIONS | {"zero_stage": stage}) for stage in (0, 1, 2, 3)),
        job("two-packed", 2, data={"pack_to": 40}, run={"zero_stage": 3}),
    ]
    processes = [start(jobs, ranks, root / f"{ranks}.log") for ranks, jobs in ((1, one), (2, two))]
    assert [process.wait(400) for process in processes] == [0, 0], (root / "2.log").read_text()[-3000:]
    yield root


@pytest.mark.parametrize("name", ["positions", "packed", "cut", "two-0", "two-1", "two-2", "two-3", "two-packed"])
def test_the_division_of_a_step_does_not_matter(runs: Path, name: str) -> None:
    """Nor does a continuation. Would catch weights that depend on ranks or micro-batches, and a lost position."""
    for mine, whole in zip(curve(runs / name), curve(runs / "whole"), strict=True):
        assert mine == pytest.approx(whole, rel=2e-4)


def test_all_steps_have_about_as_many_tokens(runs: Path) -> None:
    """Prompts count. Would catch steps of a number of examples."""
    lines = metrics(runs / "whole")
    progress = json.loads((runs / "whole/checkpoints/progress.json").read_text())
    assert len(lines) == 10 and 900 <= progress["real"] < 917
    assert progress["position"] > 19 * 3 // 2, "the examples have 7 to 16 tokens"


def test_epochs_end_with_the_last_example(runs: Path) -> None:
    result = json.loads((runs / "epochs/training.json").read_text())
    progress = json.loads((runs / "epochs/checkpoints/progress.json").read_text())
    assert result["steps"] == -(-3 * result["example_tokens"] // 90)
    assert 3 * 19 <= progress["position"] < 3 * 19 + 13


def test_fewer_positions_mean_less_padding(runs: Path) -> None:
    share = {
        name: json.loads((runs / name / "training.json").read_text())["real_token_share"]
        for name in ("whole", "positions")
    }
    assert share["positions"] > share["whole"]
