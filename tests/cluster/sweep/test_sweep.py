"""Sweeps through Ray Tune: run, continued, grown, ended early, failed, evaluated."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.commands.main import main
from cluster.runtime.ray_session import ray_session
from tests.cluster.sweep.jobs import add_unit, write_jobs
from tests.student.training.ranks import ROOT, TOPK, make_store

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("sweep")
    make_store(root / "store", tiny_model, TOPK, 19)
    write_jobs(root)
    with ray_session("local", 3):  # once for all sweeps of this file
        yield root


def run(root: Path, name: str, text: str, *options: str) -> tuple[int, dict[str, Any]]:
    """The exit code of `logitbank sweep`, and its sweep.json."""
    (root / f"{name}.toml").write_text(f'output = "{name}"\ntrain = "train.toml"\n{text}')
    code = main(["--root", str(root), "sweep", str(root / f"{name}.toml"), *options])
    return code, json.loads((root / name / "sweep.json").read_text())


def test_a_grid_is_run_compared_and_grown(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seeds = ", ".join(f'{{ "run.seed" = {seed}, "optimizer.lr" = 3e-3 }}' for seed in (0, 1))
    trials = f'{{ "optimizer.lr" = 1e-6 }}, {seeds}'
    code, first = run(root, "grid", f"trials = [{trials}]")
    assert code == 0
    assert [row["label"] for row in first["rows"]] == ["lr = 0.003", "lr = 1e-06"], "the better rate comes first"
    assert [row["states"] for row in first["rows"]] == [{"finished": 2}, {"finished": 1}]
    loss = first["rows"][0]["metrics"]["heldout_loss"]
    assert loss["lowest"] <= loss["mean"] <= loss["highest"] < first["rows"][1]["metrics"]["heldout_loss"]
    assert "lr = 0.003" in capsys.readouterr().out
    page = (root / "grid/sweep.html").read_text()
    assert "seed = 1, lr = 0.003" in page and "<svg" in page and "http" not in page.replace("http://www.w3.org", "")
    training = root / "grid/trials" / first["trials"][0]["name"] / "training.json"
    before = training.stat().st_mtime_ns
    add_unit(root / "store", 5)
    code, grown = run(root, "grid", f'trials = [{trials}, {{ "optimizer.lr" = 2e-3 }}]')
    assert code == 0 and len(grown["trials"]) == 4
    assert training.stat().st_mtime_ns == before, "what was trained is kept"
    new = json.loads((root / "grid/trials" / grown["trials"][3]["name"] / "training.json").read_text())
    assert [store["snapshot"] for store in new["stores"]] == [1], "the store has grown, the sweep reads what it read"


def test_a_scheduler_ends_bad_trials(root: Path) -> None:
    text = (
        'early_stopping = "asha"\nearly_stopping_options = { grace_period = 4, reduction_factor = 2 }\nconcurrent = 1\n'
        '[space]\n"optimizer.lr" = [3e-3, 1e-8, 1e-9]\n"run.steps" = [40]\n'
    )
    for _ in range(2):  # the second time, nothing is left to do
        code, result = run(root, "asha", text)
        states = {trial["changes"]["optimizer.lr"]: trial["state"] for trial in result["trials"]}
        assert code == 0 and states == {3e-3: "finished", 1e-8: "ended early", 1e-9: "ended early"}


def test_a_failed_trial_does_not_end_the_others(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is tried again when the sweep is run again, the others are not."""
    text = 'metric = "training_loss"\n[space]\n"optimizer.lr" = [3e-3, 1e30]\n'
    code, result = run(root, "failed", text)
    assert code == 1 and [trial["state"] for trial in result["trials"]] == ["finished", "failed"]
    assert "not finite" in result["trials"][1]["reason"] and "sweep: lr = 1e+30: " in capsys.readouterr().out


def test_trials_of_two_ranks(root: Path) -> None:
    code, result = run(root, "ranks", '[space]\n"run.ranks" = [2]\n')
    assert code == 0 and [trial["state"] for trial in result["trials"]] == ["finished"]


def test_an_evaluation_orders_the_trials(root: Path) -> None:
    """Trials that minimise different losses can be compared by it."""
    (root / "evaluate.toml").write_text('output = "unused"\nstore = "store"\nmodels = { a = "b" }\n')
    text = (
        'evaluate = "evaluate.toml"\nmetric = "kl_to_teacher"\n'
        '[space]\n"loss" = [{ objective = "hard_label" }, { objective = "forward_kl" }]\n'
    )
    code, result = run(root, "evaluated", text)
    values = [row["metrics"]["kl_to_teacher"] for row in result["rows"]]
    assert code == 0 and values == sorted(values) and "forward_kl" in result["rows"][0]["label"]
    assert "top1_agreement" in (root / "evaluated/sweep.html").read_text().replace(" ", "_")


def test_a_killed_sweep_goes_on(root: Path) -> None:
    (root / "killed.toml").write_text(
        'output = "killed"\ntrain = "train.toml"\nconcurrent = 1\n'
        '[space]\n"run.seed" = [0, 1]\n"run.steps" = [400]\n"heldout.every" = [400]\n'
    )
    command = [sys.executable, "-m", "cluster.commands.main", "--root", str(root), "sweep", str(root / "killed.toml")]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True)
    deadline = time.monotonic() + 120
    while not list((root / "killed/trials").glob("*/training.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    first = next((root / "killed/trials").glob("*/training.json"))
    before = first.stat().st_mtime_ns
    assert main(["--root", str(root), "sweep", str(root / "killed.toml")]) == 0
    result = json.loads((root / "killed/sweep.json").read_text())
    assert [trial["state"] for trial in result["trials"]] == ["finished"] * 2
    assert first.stat().st_mtime_ns == before and not (root / "killed/.tune").exists()
