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
from tests.cluster.sweep.jobs import write_jobs
from tests.student.training.ranks import ROOT, TOPK, add_unit, make_store

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


def test_trials_are_run_compared_and_joined_by_others(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One of them fails, which does not end the others. Those that were trained are not trained again."""
    (root / "evaluate.toml").write_text('output = "unused"\nstore = "store"\nmodels = { a = "b" }\n')
    seeds = ", ".join(f'{{ "run.seed" = {seed}, "optimizer.lr" = 3e-3 }}' for seed in (0, 1))
    start = f'evaluate = "evaluate.toml"\ntrials = [{{ "optimizer.lr" = 1e-6 }}, {seeds}'
    code, first = run(root, "trials", f'{start}, {{ "optimizer.lr" = 1e30 }}]')
    printed = capsys.readouterr().out
    assert code == 1 and "sweep: lr = 1e+30: " in printed and "not finite" in first["trials"][3]["reason"]
    labels = [row["label"] for row in first["rows"]]
    assert labels == ["lr = 0.003", "lr = 1e-06", "lr = 1e+30"], "the better rate comes first"
    assert [row["states"] for row in first["rows"]] == [{"finished": 2}, {"finished": 1}, {"failed": 1}]
    loss = first["rows"][0]["metrics"]["heldout_loss"]
    assert loss["lowest"] <= loss["mean"] <= loss["highest"]
    assert loss["mean"] < first["rows"][1]["metrics"]["heldout_loss"]
    page = (root / "trials/sweep.html").read_text()
    assert "seed = 1, lr = 0.003" in page and "<svg" in page and "http" not in page.replace("http://www.w3.org", "")
    assert "top1 agreement" in page
    training = root / "trials/trials" / first["trials"][0]["name"] / "training.json"
    before = training.stat().st_mtime_ns
    add_unit(root / "store", 5)
    code, grown = run(root, "trials", f'{start}, {{ "loss.objective" = "hard_label" }}]\nmetric = "kl_to_teacher"')
    assert code == 0 and len(grown["trials"]) == 4, "losses of two kinds are compared by the evaluation"
    assert training.stat().st_mtime_ns == before
    values = [row["metrics"]["kl_to_teacher"] for row in grown["rows"]]
    means = [value["mean"] if isinstance(value, dict) else value for value in values]
    assert means == sorted(means) and "objective = hard_label" in [row["label"] for row in grown["rows"]]
    new = json.loads((root / "trials/trials" / grown["trials"][3]["name"] / "training.json").read_text())
    assert [store["snapshot"] for store in new["stores"]] == [1], "the store has grown, the sweep reads what it read"


def test_what_was_trained_from_another_job_is_not_mixed_in(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nor is a metric that no trial has an order, but the trials are listed."""
    code, _ = run(root, "changed", '[space]\n"run.seed" = [0]\n')
    assert code == 0
    text = '[space]\n"run.seed" = [0, 1]\n'
    job = (root / "train.toml").read_text()
    (root / "train.toml").write_text(job.replace("lr = 0.003", "lr = 0.004"))
    for options in ([], ["--dry-run"]):
        code, _ = run(root, "changed", text, *options)
        assert code == 2 and "optimizer.lr: was 0.003, now 0.004" in capsys.readouterr().err
    (root / "train.toml").write_text(job)
    (root / "evaluate.toml").write_text('output = "unused"\nstore = "store"\nmodels = { a = "b" }\n')
    code, result = run(
        root, "changed", 'evaluate = "evaluate.toml"\nmetric = "top1_agrement"\n[space]\n"run.seed" = [0]\n'
    )
    assert code == 2 and "no trial has it" in capsys.readouterr().err
    assert result["metric"] == "top1_agrement" and "top1_agreement" in result["trials"][0]["metrics"]


def test_a_scheduler_ends_bad_trials(root: Path) -> None:
    text = (
        'early_stopping = "asha"\nearly_stopping_options = { grace_period = 4, reduction_factor = 2 }\nconcurrent = 1\n'
        '[space]\n"optimizer.lr" = [3e-3, 1e-8]\n"run.steps" = [40]\n'
    )
    for _ in range(2):  # the second time, nothing is left to do
        code, result = run(root, "asha", text)
        states = {trial["changes"]["optimizer.lr"]: trial["state"] for trial in result["trials"]}
        assert code == 0 and states == {3e-3: "finished", 1e-8: "ended early"}


def test_trials_of_two_ranks(root: Path) -> None:
    code, result = run(root, "ranks", '[space]\n"run.ranks" = [2]\n')
    assert code == 0 and [trial["state"] for trial in result["trials"]] == ["finished"]


def test_a_killed_sweep_goes_on(root: Path) -> None:
    (root / "killed.toml").write_text(
        'output = "killed"\ntrain = "train.toml"\nconcurrent = 1\n'
        '[space]\n"run.seed" = [0, 1]\n"run.steps" = [400]\n"heldout.every" = [400]\n'
    )
    command = [sys.executable, "-m", "cluster.commands.main", "--root", str(root), "sweep", str(root / "killed.toml")]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True)
    deadline = time.monotonic() + 120
    while not any('"finished"' in path.read_text() for path in (root / "killed/trials").glob("*/trial.json")):
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
