"""The mirror of a run: a machine that is lost costs the steps since the last checkpoint, and nothing else."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from cache.errors import InputError
from cache.storage.remote_folder import RemoteFolder
from cluster.training.driver import run_training
from cluster.training.preview import preview_training
from student.training.mirror.run_mirror import RunMirror
from student.training.run_files import MODEL
from student.training.settings import TrainSettings
from tests.student.training.ranks import ROOT, TOPK, make_store, metrics, settings_of

pytestmark = pytest.mark.slow
RUN = {"steps": 12, "ranks": 1, "zero_stage": 0, "checkpoint_every": 4}
# Trains one job on every rank. Each rank has a folder of its own, as a machine has.
MACHINES = """
import os, sys
from student.training.settings import TrainSettings
from student.training.train import train
os.environ["LOCAL_RANK"] = "0"
train(TrainSettings.model_validate_json(sys.argv[1].replace("MACHINE", "machine" + os.environ["RANK"])))
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    return make_store(tmp_path_factory.mktemp("store"), tiny_model, TOPK, 19)


def require_equal(one: Path, other: Path) -> None:
    """Both runs have saved the same student."""
    weights, expected = (load_file(folder / MODEL / "model.safetensors") for folder in (one, other))
    assert weights.keys() == expected.keys()
    assert all((weights[name] == expected[name]).all() for name in expected)


def driver(values: str) -> None:
    """A driver, in a process of its own."""
    run_training(TrainSettings.model_validate_json(values), None)


def kill_after_first_copy(settings: TrainSettings) -> None:
    """Start the job, and kill its driver and its rank once the mirror has a checkpoint."""
    process = multiprocessing.get_context("spawn").Process(target=driver, args=(settings.model_dump_json(),))
    process.start()
    assert process.pid is not None and settings.mirror is not None
    mirror, deadline = RunMirror(settings.output, settings.mirror), time.monotonic() + 240
    while mirror.progress() is None and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert process.is_alive(), "the run was to be killed before its end"
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def test_a_run_whose_machine_is_lost_goes_on_elsewhere(tmp_path: Path, store: Path, bucket: str) -> None:
    """In another folder, from a bucket, to the same student; then once more, and longer, from a third."""
    run = RUN | {"steps": 300, "checkpoint_every": 40}
    heldout = {"store": str(store), "every": 60}
    lost = settings_of(tmp_path / "lost", store, run=run, heldout=heldout, mirror=bucket)
    kill_after_first_copy(lost)
    shutil.rmtree(lost.output)
    found = lost.model_copy(update={"output": tmp_path / "found"})
    result = run_training(found, None)
    assert metrics(found.output)[0]["step"] == 1 and metrics(found.output)[-1]["step"] == 300
    whole = settings_of(tmp_path / "whole", store, run=run, heldout=heldout)
    expected = run_training(whole, None)
    require_equal(found.output, whole.output)
    assert {name: result[name] for name in ("steps", "tokens", "best_step", "best_loss")} == {
        name: expected[name] for name in ("steps", "tokens", "best_step", "best_loss")
    }
    third = lost.model_copy(update={"output": tmp_path / "third"})
    assert run_training(third, None) == result, "what is complete is fetched, not trained again"
    require_equal(third.output, whole.output)
    fourth = settings_of(tmp_path / "fourth", store, run=run | {"steps": 320}, heldout=heldout, mirror=bucket)
    run_training(fourth, None)
    run_training(whole.model_copy(update={"run": fourth.run}), None)
    require_equal(fourth.output, whole.output)
    copies = {name.split("/")[1] for name in RemoteFolder(bucket).sizes("checkpoints") if name.count("/") > 1}
    assert len(copies) == 1, "as many as the folder of a finished run has"


def test_the_mirror_of_another_job_is_refused(tmp_path: Path, store: Path) -> None:
    """Before anything is written; also by a dry run."""
    mirror = str(tmp_path / "mirror")
    run_training(settings_of(tmp_path / "run", store, run=RUN, mirror=mirror), None)
    before = RemoteFolder(mirror).sizes("")
    other = settings_of(tmp_path / "other", store, run=RUN | {"seed": 4}, mirror=mirror)
    for call in (lambda: run_training(other, None), lambda: preview_training(other)):
        with pytest.raises(InputError, match=r"mirror .*run.seed: was 3, now 4.*; give another mirror"):
            call()
    assert not other.output.exists() and RemoteFolder(mirror).sizes("") == before


def test_an_end_that_could_not_be_copied_is_copied_by_the_next_call(tmp_path: Path, store: Path) -> None:
    """The run is complete, so nothing is trained; and it is found elsewhere from then on."""
    settings = settings_of(tmp_path / "run", store, run=RUN)
    expected = run_training(settings, None)
    mirrored = settings.model_copy(update={"mirror": str(tmp_path / "mirror")})
    assert run_training(mirrored, None) == expected
    elsewhere = mirrored.model_copy(update={"output": tmp_path / "elsewhere"})
    assert run_training(elsewhere, None) == expected
    require_equal(elsewhere.output, settings.output)


def test_a_mirror_has_a_place_of_its_own(tmp_path: Path, store: Path) -> None:
    """Not a store, whose files it would lie among; and not the run itself, whose files it would replace."""
    (tmp_path / "file").write_text("")
    for mirror, says in (
        (store, "is a store; give a folder"),
        (tmp_path / "run", "is the output of the run, in it or around it"),
        (tmp_path / "run" / "mirror", "is the output of the run, in it or around it"),
        (tmp_path, "is the output of the run, in it or around it"),
        (tmp_path / "file", "correct the address"),
        ("strange://bucket/x", "correct the address"),
        ("s3://user:password@bucket/x", "expected an address such as s3://bucket/prefix"),
    ):
        settings = settings_of(tmp_path / "run", store, run=RUN, mirror=str(mirror))
        with pytest.raises(InputError, match=f"^mirror.*{says}") as error:
            run_training(settings, None)
        assert not settings.output.exists() and "password" not in str(error.value)


def test_a_mirror_that_cannot_be_written_is_refused_before_the_training(
    tmp_path: Path, store: Path, bucket: str
) -> None:
    settings = settings_of(tmp_path / "run", store, run=RUN, mirror="s3://no-such-bucket/x")
    with pytest.raises(InputError, match=r"^mirror: s3://no-such-bucket/x/probe: cannot be written"):
        run_training(settings, None)
    assert not settings.output.exists()


@pytest.mark.parametrize(("stage", "ranks_before"), [(2, 1), (3, 2)])
def test_ranks_without_a_common_folder_go_on_from_the_mirror(
    tmp_path: Path, store: Path, stage: int, ranks_before: int
) -> None:
    """Each rank with its own disk: one is lost after the end, or there was but one; and the run is made longer."""

    def train(steps: int, ranks: int = 2) -> None:
        run = {"steps": steps, "zero_stage": stage, "checkpoint_every": 2}
        settings = settings_of(tmp_path / "MACHINE", store, run=run, mirror=str(tmp_path / "mirror"))
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        command = [*launcher, "--no-python", sys.executable, "-c", MACHINES, settings.model_dump_json()]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]

    train(4, ranks_before)
    shutil.rmtree(tmp_path / "machine0")
    if ranks_before == 2:
        (tmp_path / "machine1" / "checkpoints").rename(tmp_path / "machine1" / "elsewhere")
    train(6)
    lines = metrics(tmp_path / "machine0")
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    tokens = [line["tokens"] for line in lines]
    assert tokens == sorted(set(tokens))
    assert json.loads(RemoteFolder(str(tmp_path / "mirror")).read("training.json") or b"{}")["steps"] == 6
