"""`logitbank status` and `logitbank list` say from files alone what there is and how far it is."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from cache.json_documents import write_json
from cache.rows.record import Record
from cache.rows.spec import StoreSpec
from cache.storage.local import LocalStorage
from cache.store.commits import create_store
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from cluster.commands.main import main

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def runs(tmp_path: Path, spec: StoreSpec, make_records: Callable[..., list[Record]]) -> Path:
    """A store of 3 examples, and a training run that stands at step 40 of 100."""
    storage = LocalStorage(tmp_path / "runs" / "store")
    create_store(storage, spec)
    write_unit(storage, spec, make_records(3))
    output = tmp_path / "runs" / "student"
    write_json(output / "job.json", {"run": {"steps": 100}, "optimizer": {"lr": 0.1}})
    write_json(output / "checkpoints" / "progress.json", {"step": 30})
    lines: list[dict[str, Any]] = [
        {"step": step, "objective": 1 / step, "tokens": 50 * step, "seconds": step / 2} for step in range(1, 41)
    ]
    lines[9]["heldout_objective"], lines[29]["heldout_objective"] = 0.25, 0.5
    (output / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"step": 41, "obj')
    return tmp_path


def status(capsys: pytest.CaptureFixture[str], root: Path, name: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["--root", str(root), "status", name, "--json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


def capture_log(planned: int) -> dict[str, Any]:
    return {"job": {}, "hardware": "", "planned": planned, "runs": [{"rows": 90, "seconds": 2.0, "start_seconds": 1.0}]}


def test_the_state_of_a_capture_is_reported(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = status(capsys, runs, "runs/store")
    assert (state["kind"], state["state"]) == ("store", "3 examples, no snapshot yet")
    write_json(runs / "runs" / "store.capture.json", capture_log(planned=8))
    state = status(capsys, runs, "runs/store")
    assert state["state"] == "3 of 8 examples answered"
    assert state["facts"]["tokens_per_s"] == 45.0 and state["facts"]["planned_examples"] == 8
    write_json(runs / "runs" / "store.capture.json", capture_log(planned=3))
    assert status(capsys, runs, "runs/store")["state"] == "captured, no snapshot yet"
    take_snapshot(LocalStorage(runs / "runs" / "store"))
    state = status(capsys, runs, "runs/store")
    assert state["state"] == "complete" and state["facts"]["newest_snapshot"] == 1


def test_the_state_of_a_training_run_is_reported(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = status(capsys, runs, "runs/student")
    facts = state["facts"]
    assert (state["kind"], state["state"]) == ("training", "step 40 of 100")
    assert (facts["steps"], facts["planned_steps"], facts["checkpoint_at_step"]) == (40, 100, 30)
    assert facts["best_heldout_loss"] == 0.25 and facts["tokens_per_s"] == 100.0
    assert main(["--root", str(runs), "status", "runs/student"]) == 0
    assert "best heldout loss  0.2500" in capsys.readouterr().out
    write_json(runs / "runs" / "student" / "training.json", {"steps": 40})
    assert status(capsys, runs, "runs/student")["state"] == "complete, stopped early at step 40 of 100"


def test_a_list_has_one_line_for_each_store_and_output(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(runs / "runs" / "evaluation" / "job.json", {"models": {"kd": "a", "ce": "b"}})
    write_json(runs / "runs" / "evaluation" / "kd.json", {})
    write_json(runs / "runs" / "examples" / "examples.json", {"examples": {"train": 3}, "seconds": 1.0})
    write_json(runs / "runs" / "results.json", {})
    (runs / "runs" / "broken").mkdir()
    (runs / "runs" / "broken" / "spec.json").write_text("{}")
    assert main(["--root", str(runs), "list", "runs"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[:2] for line in lines] == [
        ["report", "."],
        ["store", "broken"],
        ["evaluation", "evaluation"],
        ["examples", "examples"],
        ["store", "store"],
        ["training", "student"],
    ]
    assert lines[1][4] == "damaged:" and lines[2][4:] == ["1", "of", "2", "models", "evaluated"]
    assert lines[5][4:] == ["step", "40", "of", "100"]


def test_other_folders_are_refused(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command, message in [
        (["status", "runs/none"], "runs/none: no such folder"),
        (["status", "."], "is neither a store nor the output folder of a job"),
        (["list", "runs/none"], "no such folder"),
    ]:
        assert main(["--root", str(runs), *command]) == 2
        assert message in capsys.readouterr().err
    (runs / "empty").mkdir()
    assert main(["--root", str(runs), "list", "empty"]) == 0
    assert "no store and no output of a job" in capsys.readouterr().out


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_watch_shows_new_readings_until_ctrl_c(runs: Path, form: list[str]) -> None:
    command = [sys.executable, "-m", "cluster.commands.main", "--root", str(runs), "status", "runs/store", *form]
    with subprocess.Popen([*command, "--watch", "0.2"], cwd=ROOT, stdout=subprocess.PIPE, text=True) as watch:
        assert watch.stdout is not None
        first = read_until(watch.stdout, "3 examples")
        write_json(runs / "runs" / "store.capture.json", capture_log(planned=8))
        second = read_until(watch.stdout, "3 of 8 examples")
        watch.send_signal(signal.SIGINT)
        assert watch.wait(20) == 0
    assert all(json.loads(line)["kind"] == "store" for line in (first, second) if form)


@pytest.mark.parametrize("seconds", ["0", "-1", "soon", "inf", "nan"])
def test_an_interval_that_is_none_is_refused(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["status", "runs/store", f"--watch={seconds}"])
    assert stop.value.code == 2 and f"invalid _interval value: {seconds!r}" not in capsys.readouterr().err


def read_until(lines: Iterable[str], text: str) -> str:
    return next(line for line in lines if text in line)
