"""Ctrl-C ends a training like any other command, and what rank 0 logs is shown."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cache.errors import InputError
from cluster.runtime.outputs import JOB, locked
from cluster.training.driver import run_training
from cluster.training.step_progress import last_line
from student.training.engine.skipped_steps import DivergenceError
from student.training.planning.plan import PLAN
from student.training.run_files import steps_done
from tests.student.training.ranks import TOPK, make_store, settings_of

ROOT = Path(__file__).resolve().parents[3]


def test_only_complete_lines_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert last_line(path) is None
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert last_line(path) == {"step": 2}


@pytest.mark.slow
@pytest.mark.usefixtures("heeds_interrupts")  # a child process inherits an ignored signal, but not a handler
def test_ctrl_c_says_how_to_continue(tmp_path: Path, tiny_model: Path) -> None:
    """With real ranks. Would catch exit code 1 without a line, and ranks that go on."""
    settings = settings_of(
        tmp_path / "run",
        make_store(tmp_path / "store", tiny_model, TOPK, 19),
        run={"steps": 100_000, "ranks": 1, "zero_stage": 1, "checkpoint_every": 5},
    )
    values = settings.model_dump(mode="json", exclude_unset=True)
    model = values["model"]["config"]
    lines = [f"output = {json.dumps(values['output'])}"]
    for table in ("data", "optimizer", "run"):
        lines += [f"[{table}]", *(f"{key} = {json.dumps(value)}" for key, value in values[table].items())]
    lines += ["[model.config]", *(f"{key} = {json.dumps(value)}" for key, value in model.items())]
    (tmp_path / "job.toml").write_text("\n".join(lines))
    process = subprocess.Popen(
        [sys.executable, "-m", "cluster.commands.main", "--root", str(tmp_path), "train", str(tmp_path / "job.toml")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 240
        while not steps_done(tmp_path / "run") and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        assert process.poll() is None, process.communicate()
        # Another training in the same folder would overwrite its checkpoints.
        with pytest.raises(InputError, match=rf"process {process.pid} on .* works in it; wait for its end"):
            run_training(settings, None)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=90)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert process.returncode == 130, stderr[-3000:]
    assert "run the same command again to continue" in stderr and "Traceback" not in stderr
    done = steps_done(tmp_path / "run")
    time.sleep(2)
    assert steps_done(tmp_path / "run") == done > 0


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_training_leaves_the_plan_of_another_one_alone(tmp_path: Path, tiny_model: Path, ranks: int) -> None:
    """Would catch a second training that is refused only after it replaced the plan, which ranks read at each start."""
    store = make_store(tmp_path / "store", tiny_model, TOPK, 19)
    settings = settings_of(tmp_path / "run", store, run={"ranks": ranks})
    with locked(tmp_path / "run"), pytest.raises(InputError, match="works in it; wait for its end"):
        run_training(settings, None)
    assert not (tmp_path / "run" / PLAN).exists() and not (tmp_path / "run" / JOB).exists()


@pytest.mark.slow
def test_a_run_that_diverges_is_not_started_again(tmp_path: Path, tiny_model: Path) -> None:
    """With real ranks. A restart would repeat the same steps. Would catch three restarts, and a page of traceback."""
    settings = settings_of(
        tmp_path / "run",
        make_store(tmp_path / "store", tiny_model, TOPK, 19),
        optimizer={"lr": 1e37, "warmup_steps": 0, "weight_decay": 0.0},
        run={"steps": 30, "ranks": 1, "max_skipped_steps": 2},
    )
    with pytest.raises(DivergenceError, match="steps 2 to 3: the gradients are not finite"):
        run_training(settings, None)
    assert len(list((tmp_path / "run" / "tensorboard").glob("events*"))) == 1
