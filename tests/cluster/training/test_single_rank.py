"""The only rank of a machine: a child process, started again when it is lost, which never outlives its parent."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from cluster.training.driver import run_training
from cluster.training.single_rank import RankLostError
from student.training.run_files import RANK_LOG, steps_done
from student.training.settings import TrainSettings
from tests.student.training.ranks import TOPK, make_store, settings_of

pytestmark = pytest.mark.slow
RUN = {"steps": 12, "ranks": 1, "zero_stage": 0, "checkpoint_every": 4}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    return make_store(tmp_path_factory.mktemp("store"), tiny_model, TOPK, 19)


def kill_rank(when: Callable[[], bool]) -> Callable[[], None]:
    """A function that kills the running rank, once, as soon as `when` is true."""
    killed: list[int] = []

    def kill() -> None:
        if not killed and when():
            child = next(child for child in multiprocessing.active_children() if child.name == "rank")
            assert child.pid is not None
            killed.append(child.pid)
            os.kill(child.pid, signal.SIGKILL)

    return kill


def watch(monkeypatch: pytest.MonkeyPatch, call: Callable[[], None]) -> None:
    """Have the driver call `call` whenever it shows progress."""
    monkeypatch.setattr("cluster.training.driver.StepProgress.update", lambda _: call())


def test_a_lost_process_is_started_again_and_changes_nothing(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed after its first checkpoint, it has the weights of an undisturbed run in the end."""
    disturbed = settings_of(tmp_path / "disturbed", store, run=RUN | {"steps": 400})
    watch(monkeypatch, kill_rank(lambda: steps_done(disturbed.output) > 0))
    run_training(disturbed, None)
    assert "was lost (signal SIGKILL)" in (printed := capsys.readouterr().out) and "starting again (1 of 3)" in printed
    whole = settings_of(tmp_path / "whole", store, run=RUN | {"steps": 400})
    monkeypatch.undo()
    run_training(whole, None)
    assert [path.name for path in (whole.output / "checkpoints").glob("step-*")] == ["step-400"], "the last one alone"
    weights, expected = (load_file(job.output / "model" / "model.safetensors") for job in (disturbed, whole))
    assert all((weights[name] == expected[name]).all() for name in expected)


def test_a_rank_that_is_lost_too_often_ends_the_job(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(tmp_path / "run", store, run=RUN | {"steps": 100_000, "max_failures": 0})
    watch(monkeypatch, kill_rank(lambda: True))
    with pytest.raises(RankLostError, match=r"signal SIGKILL.*rank.log"):
        run_training(settings, None)


def test_an_error_of_a_library_is_tried_again_and_its_traceback_kept(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error comes from inside the rank: it cannot write its metrics."""
    settings = settings_of(tmp_path / "run", store, run=RUN | {"max_failures": 1})
    settings.output.mkdir(parents=True)
    (settings.output / "tensorboard").write_text("a file in the way")
    with pytest.raises(RankLostError, match=r"the rank failed: .*Error.*; its output is in .*rank.log"):
        run_training(settings, None)
    assert "Traceback" in (settings.output / RANK_LOG).read_text()


def parent_of_a_rank(values: str) -> None:
    """A driver, in a process of its own."""
    run_training(TrainSettings.model_validate_json(values), None)


def test_a_rank_ends_with_its_parent(tmp_path: Path, store: Path) -> None:
    """Even if that was killed: a rank that goes on would write into the folder of the next run."""
    settings = settings_of(tmp_path / "run", store, run=RUN | {"steps": 100_000})
    driver = multiprocessing.get_context("spawn").Process(target=parent_of_a_rank, args=(settings.model_dump_json(),))
    driver.start()
    deadline = time.monotonic() + 240
    while not steps_done(settings.output) and driver.is_alive() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert driver.is_alive() and driver.pid is not None
    os.kill(driver.pid, signal.SIGKILL)
    driver.join()
    time.sleep(2)
    done = (settings.output / "metrics.jsonl").stat().st_size
    time.sleep(2)
    assert (settings.output / "metrics.jsonl").stat().st_size == done
