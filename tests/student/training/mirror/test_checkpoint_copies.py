"""Copies of checkpoints: whatever fails and whenever, the mirror has one whole state of the run."""

import json
import multiprocessing
import os
import shutil
import socket
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from cache.errors import StoreError
from cache.json_documents import write_json
from cache.storage.remote_folder import RemoteFolder
from student.training.engine.checkpoints import commit_checkpoint
from student.training.mirror.checkpoint_copies import CheckpointCopies
from student.training.mirror.mirrored_checkpoints import rank_of
from student.training.run_files import BEST, CHECKPOINTS, METRICS, MODEL, RESULT, checkpoint_folder, steps_done

CALLS = ("upload", "write", "remove", "sizes")


@pytest.fixture
def single_rank(tmp_path: Path) -> Iterator[None]:
    """A group of this process alone."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def train_to(output: Path, step: int, rank: int = 0, ranks: int = 1) -> None:
    """What a rank has written when it saves the checkpoint of a step. The best student is of the step before."""
    folder = checkpoint_folder(output / CHECKPOINTS, step)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt").write_text(f"optimizer of {rank} at {step}")
    if rank == 0:
        (folder / "mp_rank_00_model_states.pt").write_text(f"model at {step}")
        (output / BEST).mkdir(exist_ok=True)
        (output / BEST / "model.safetensors").write_text(f"best at {step - 1}")
        with (output / METRICS).open("a") as metrics:
            metrics.write(json.dumps({"step": step}) + "\n")
        verdict = {"best_step": step - 1, "best_loss": 1.0, "since": 0}
        commit_checkpoint(output / CHECKPOINTS, step, {"ranks": ranks, "verdict": verdict}, 2)


def state(output: Path, rank: int = 0) -> tuple[int, dict[str, str]]:
    """The current step of a folder, and what a rank would read of it."""
    step = steps_done(output)
    if step == 0:
        return 0, {}
    folder = checkpoint_folder(output / CHECKPOINTS, step)
    names = ("mp_rank_00_model_states.pt", f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
    return step, {name: (folder / name).read_text() for name in names}


def expected(step: int, rank: int = 0) -> tuple[int, dict[str, str]]:
    """What a rank must find after a step."""
    if step == 0:
        return 0, {}
    optimizer = f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"
    return step, {"mp_rank_00_model_states.pt": f"model at {step}", optimizer: f"optimizer of {rank} at {step}"}


def copy_from_two_folders(root: Path, mirror: str) -> None:
    """A run that is "here", and then once more, at the same step, "there"."""
    for name in ("here", "there"):
        copies = CheckpointCopies(root / name, mirror, keep=2)
        train_to(root / name, 10)
        copies.send(10)
        copies.wait()


def count_and_fail(monkeypatch: pytest.MonkeyPatch, at: int | None) -> list[str]:
    """Count the requests of the mirror. From request `at` on, each is refused: the process is as good as dead."""
    calls: list[str] = []

    def wrap(name: str) -> None:
        inner = getattr(RemoteFolder, name)

        def call(self: RemoteFolder, *arguments: Any) -> Any:
            calls.append(name)
            if at is not None and len(calls) > at:
                raise StoreError("the service is gone")
            return inner(self, *arguments)

        monkeypatch.setattr(RemoteFolder, name, call)

    for name in CALLS:
        wrap(name)
    return calls


@pytest.mark.usefixtures("single_rank")
def test_a_lost_folder_comes_back_from_the_mirror(tmp_path: Path) -> None:
    """With the last checkpoint and its best student; and of older ones as many are kept as the run keeps."""
    mirror = str(tmp_path / "mirror")
    copies = CheckpointCopies(tmp_path / "run", mirror, keep=2)
    copies.restore()
    for step in (10, 20, 30, 40):
        train_to(tmp_path / "run", step)
        copies.send(step)
    copies.wait()
    copies.close()
    kept = {name.split("/")[1].rpartition("-")[0] for name in RemoteFolder(mirror).sizes(CHECKPOINTS) if "-" in name}
    assert kept == {"step-30", "step-40"}
    assert {name.split("/")[1] for name in RemoteFolder(mirror).sizes(BEST)} == {"step-39"}
    shutil.rmtree(tmp_path / "run")
    again = CheckpointCopies(tmp_path / "run", mirror, keep=2)
    again.restore()
    assert state(tmp_path / "run") == expected(40)
    assert (tmp_path / "run" / BEST / "model.safetensors").read_text() == "best at 39"


@pytest.mark.usefixtures("single_rank")
def test_a_run_that_is_ahead_of_its_mirror_keeps_what_it_has(tmp_path: Path) -> None:
    copies = CheckpointCopies(tmp_path / "run", str(tmp_path / "mirror"), keep=2)
    train_to(tmp_path / "run", 10)
    copies.send(10)
    copies.wait()
    train_to(tmp_path / "run", 20)
    CheckpointCopies(tmp_path / "run", str(tmp_path / "mirror"), keep=2).restore()
    assert state(tmp_path / "run") == expected(20)


@pytest.mark.usefixtures("single_rank")
def test_another_checkpoint_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    """The run went on elsewhere from an older checkpoint: files of equal names and sizes are not the same."""
    mirror = str(tmp_path / "mirror")
    for name in ("here", "there"):
        copies = CheckpointCopies(tmp_path / name, mirror, keep=2)
        train_to(tmp_path / name, 10)
        if name == "there":
            (tmp_path / name / CHECKPOINTS / "step-10" / "mp_rank_00_model_states.pt").write_text("model at XX")
        copies.send(10)
        copies.wait()
    CheckpointCopies(tmp_path / "here", mirror, keep=2).restore()
    assert state(tmp_path / "here")[1]["mp_rank_00_model_states.pt"] == "model at XX"


@pytest.mark.usefixtures("single_rank")
def test_wherever_a_copy_ends_the_mirror_has_one_whole_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request of the second and third checkpoint is the last one that succeeds, one after the other."""
    with monkeypatch.context() as patch:
        steps = (10, 20, 30)
        calls = count_and_fail(patch, None)
        copies = CheckpointCopies(tmp_path / "whole", str(tmp_path / "mirror"), keep=2)
        for step in steps:
            train_to(tmp_path / "whole", step)
            copies.send(step)
            copies.wait()
    found = []
    for at in range(len(calls) + 1):
        run, mirror = tmp_path / f"run{at}", str(tmp_path / f"mirror{at}")
        with monkeypatch.context() as patch:
            count_and_fail(patch, at)
            copies = CheckpointCopies(run, mirror, keep=2)
            for step in steps:
                train_to(run, step)
                copies.send(step)
                copies.wait()
        fresh = CheckpointCopies(tmp_path / f"fresh{at}", mirror, keep=2)
        fresh.restore()
        step, files = state(tmp_path / f"fresh{at}")
        assert (step, files) == expected(step)
        if step:
            assert (tmp_path / f"fresh{at}" / BEST / "model.safetensors").read_text() == f"best at {step - 1}"
        found.append(step)
    assert found == sorted(found) and set(found) == {0, 10, 20, 30}


@pytest.mark.usefixtures("single_rank")
def test_a_service_that_comes_back_gets_the_checkpoint_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed copy does not end a run; an end that cannot be copied does."""
    run, mirror = tmp_path / "run", RemoteFolder(str(tmp_path / "mirror"))
    copies = CheckpointCopies(run, str(mirror), keep=2)
    with monkeypatch.context() as patch:
        count_and_fail(patch, 3)
        train_to(run, 10)
        copies.send(10)
        copies.wait()
        (run / MODEL).mkdir()
        (run / MODEL / "model.safetensors").write_text("the student")
        write_json(run / RESULT, {"steps": 10})
        with pytest.raises(StoreError, match="the service is gone"):
            copies.finish()
    copies.finish()
    assert mirror.read(f"{MODEL}/model.safetensors") == b"the student"
    assert json.loads(mirror.read(f"{CHECKPOINTS}/progress.json") or b"{}")["step"] == 10
    assert json.loads(mirror.read(RESULT) or b"{}") == {"steps": 10}


@pytest.mark.usefixtures("single_rank")
def test_the_end_after_steps_without_a_checkpoint(tmp_path: Path) -> None:
    """The last steps changed nothing, so step 12 has no checkpoint: that of step 10 stays, here and in the mirror."""
    run, mirror = tmp_path / "run", str(tmp_path / "mirror")
    copies = CheckpointCopies(run, mirror, keep=2)
    copies.restore()
    write_json(run / RESULT, {"steps": 2})
    copies.finish()  # no checkpoint at all
    train_to(run, 10)
    copies.send(10)
    write_json(run / RESULT, {"steps": 12})
    copies.finish()
    copies.close()
    assert json.loads(RemoteFolder(mirror).read(RESULT) or b"{}") == {"steps": 12}
    for folder in (run, tmp_path / "elsewhere"):
        CheckpointCopies(folder, mirror, keep=2).restore()
        assert state(folder) == expected(10)


@pytest.mark.usefixtures("single_rank")
def test_a_checkpoint_that_is_not_whole_replaces_nothing(tmp_path: Path) -> None:
    """Somebody has removed a file of the mirror. What the folder has is not given up for the rest."""
    mirror = str(tmp_path / "mirror")
    copy_from_two_folders(tmp_path, mirror)
    files = RemoteFolder(mirror)
    files.remove([name for name in files.sizes(CHECKPOINTS) if name.endswith("optim_states.pt")])
    for name in ("here", "new"):
        with pytest.raises(StoreError, match=r"optim_states.pt: missing"):
            CheckpointCopies(tmp_path / name, mirror, keep=2).restore()
    assert state(tmp_path / "here") == expected(10) and steps_done(tmp_path / "new") == 0


@pytest.mark.usefixtures("single_rank")
def test_the_universal_form_of_a_replaced_checkpoint_goes_with_it(tmp_path: Path) -> None:
    """It would be loaded instead of the checkpoint, with the weights of the other one."""
    mirror = str(tmp_path / "mirror")
    copy_from_two_folders(tmp_path, mirror)
    universal = tmp_path / "here" / CHECKPOINTS / "step-10-universal"
    universal.mkdir()
    CheckpointCopies(tmp_path / "here", mirror, keep=2).restore()
    assert not universal.exists()


@pytest.mark.usefixtures("single_rank")
def test_a_start_that_another_one_followed_leaves_the_mirror_alone(tmp_path: Path) -> None:
    """A machine that was given up goes on: its copies neither become current, nor remove those of the later start."""
    mirror = str(tmp_path / "mirror")
    lost = CheckpointCopies(tmp_path / "lost", mirror, keep=2)
    lost.restore()
    train_to(tmp_path / "lost", 10)
    lost.send(10)
    lost.wait()
    found = CheckpointCopies(tmp_path / "found", mirror, keep=2)
    found.restore()
    for step in (20, 30):
        train_to(tmp_path / "lost", step)
        lost.send(step)
        lost.wait()
    train_to(tmp_path / "found", 15)
    found.send(15)
    found.wait()
    with pytest.raises(StoreError, match="a later start of this run writes to it"):
        lost.finish()
    CheckpointCopies(tmp_path / "new", mirror, keep=2).restore()
    assert state(tmp_path / "new") == expected(15)


@pytest.mark.parametrize(
    ("name", "rank"),
    [
        ("mp_rank_00_model_states.pt", 0),
        ("bf16_zero_pp_rank_3_mp_rank_00_optim_states.pt", 3),
        ("zero_pp_rank_12_mp_rank_00_model_states.pt", 12),
        ("offloaded_tensors/rank02/optimizer/1_2.tensor.swp", 2),
    ],
)
def test_each_file_belongs_to_the_rank_that_has_it(name: str, rank: int) -> None:
    assert rank_of(name) == rank


def rank_of_a_group(rank: int, port: int, shared: bool, folder: str, todo: str, answers: Any) -> None:
    """One of two ranks. todo: "train", "restore", or "half": rank 1 cannot send its part of the second checkpoint.

    "slow": as "restore", but it takes longer than the collectives of a training may.
    """
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": "0" if not shared else str(rank)}
    limit = timedelta(seconds=3) if todo == "slow" else None
    dist.init_process_group("gloo", rank=rank, world_size=2, timeout=limit)
    if todo == "slow":
        download = RemoteFolder.download

        def slow(self: RemoteFolder, name: str, path: Path) -> None:
            time.sleep(4)
            download(self, name, path)

        RemoteFolder.download = slow  # type: ignore[method-assign]
    output = Path(folder) / ("run" if shared else f"machine{rank}")
    copies = CheckpointCopies(output, f"{folder}/mirror", keep=2)
    copies.restore()
    if todo in ("train", "half"):
        for step in (10, 20):
            copies.wait()
            if todo == "half" and step == 20 and rank == 1:
                RemoteFolder.upload = refuse  # type: ignore[method-assign]
            train_to(output, step, rank, 2)
            dist.barrier()
            copies.send(step)
        copies.wait()
    answers.put((rank, state(output, rank)))
    dist.barrier()
    copies.close()
    dist.destroy_process_group()


def refuse(*_: Any) -> None:
    """Instead of an upload."""
    raise StoreError("the service is gone")


def run_group(tmp_path: Path, shared: bool, todo: str) -> dict[int, Any]:
    """What two ranks find in their folders in the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    ranks = [
        context.Process(target=rank_of_a_group, args=(rank, port, shared, str(tmp_path), todo, answers))
        for rank in range(2)
    ]
    for process in ranks:
        process.start()
    found = dict(answers.get(timeout=120) for _ in ranks)
    for process in ranks:
        process.join(60)
        assert process.exitcode == 0
    return found


@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False])
def test_ranks_of_two_machines_find_their_parts(tmp_path: Path, shared: bool) -> None:
    """Also where each has only its own disk, and one of the machines is a new one."""
    run_group(tmp_path, shared, "train")
    lost = tmp_path / ("run" if shared else "machine1")
    shutil.rmtree(lost)
    assert run_group(tmp_path, shared, "restore") == {rank: expected(20, rank) for rank in range(2)}
    if not shared:
        shutil.rmtree(tmp_path / "machine0")
        (tmp_path / "machine1").rename(tmp_path / "machine0")
        assert run_group(tmp_path, shared, "restore") == {rank: expected(20, rank) for rank in range(2)}


@pytest.mark.slow
def test_a_restore_may_take_longer_than_a_collective(tmp_path: Path) -> None:
    run_group(tmp_path, True, "train")
    shutil.rmtree(tmp_path / "run")
    assert run_group(tmp_path, True, "slow") == {rank: expected(20, rank) for rank in range(2)}


@pytest.mark.slow
def test_a_run_of_one_machine_goes_on_with_a_second_one(tmp_path: Path) -> None:
    """Its checkpoint, of which the mirror has nothing yet, is not removed but sent to the other machine."""
    for rank in range(2):
        train_to(tmp_path / "machine0", 30, rank, 2)
    assert run_group(tmp_path, False, "restore") == {rank: expected(30, rank) for rank in range(2)}


@pytest.mark.slow
def test_a_checkpoint_that_one_rank_could_not_send_is_not_the_current_one(tmp_path: Path) -> None:
    """Nobody waits for that rank for ever. Machines without a common folder go back to what all of them have."""
    run_group(tmp_path, False, "half")
    assert run_group(tmp_path, False, "restore") == {rank: expected(10, rank) for rank in range(2)}
