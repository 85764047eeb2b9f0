"""A training job that is refused changes no file of its output folder. A run that continues keeps its ranks."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cache.errors import InputError
from cache.json_documents import write_json
from cluster.report.run_state import state_of
from cluster.runtime.outputs import write_job
from cluster.training import driver
from cluster.training.driver import choose_ranks, make_plan, run_training
from cluster.training.snapshot_pinning import pin_snapshots
from student.training.planning.stores import OpenStores
from student.training.run_files import FORMAT
from student.training.settings import TrainSettings
from tests.student.training.ranks import LLAMA, TOPK, make_store, settings_of

RESULT = {"steps": 4, "examples": 6, "planned_steps": 4, "stopped_early": False}


@pytest.fixture
def job(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Settings of a run that has a checkpoint of step 4 by two ranks. Ray is replaced by a cluster of two CPUs."""

    @contextmanager
    def session(address: str | None, cpus: int) -> Iterator[None]:
        if address is not None:
            raise InputError("no Ray head answers")
        yield

    def require_cpus(count: int) -> None:
        if count > 2:
            raise InputError("the job needs more CPUs")

    monkeypatch.setattr(driver, "ray_session", session)
    monkeypatch.setattr(driver, "cluster_gpus", lambda: 0)
    monkeypatch.setattr(driver, "require_gpus", lambda count: None)
    monkeypatch.setattr(driver, "require_cpus", require_cpus)
    store = make_store(tmp_path / "store", tiny_model, TOPK, 6)
    settings = settings_of(tmp_path / "run", store)
    stores = OpenStores()
    settings = pin_snapshots(settings, stores)
    make_plan(settings, stores)
    write_job(settings.output, settings)
    write_json(settings.output / "checkpoints" / "progress.json", {"format": FORMAT, "step": 4, "ranks": 2})
    return {"output": tmp_path / "run", "store": store}


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("is_finished", [False, True])
@pytest.mark.parametrize(
    ("sections", "address", "message"),
    [
        ({"run": {"steps": 3}}, None, "has a run of 4 steps already"),
        ({"run": {"steps": None, "epochs": 1.0}}, None, "has a run of 4 steps already"),
        ({"run": {"steps": 9}, "model": {"config": {**LLAMA, "hidden_size": 16}}}, None, "with other settings"),
        ({"run": {"steps": 9}}, "127.0.0.1:1", "no Ray head answers"),
        ({"run": {"steps": 9, "ranks": 4, "micro_batch_size": 1}}, None, "needs more CPUs"),
    ],
    ids=["fewer steps", "fewer epochs", "other settings", "no Ray", "too many ranks"],
)
def test_a_refused_job_changes_no_file(
    job: dict[str, Any], sections: dict[str, Any], address: str | None, message: str, is_finished: bool
) -> None:
    """Would catch a job.json that tells of a job that never ran."""
    if is_finished:
        write_json(job["output"] / "training.json", RESULT)
    before = files_of(job["output"])
    with pytest.raises(InputError, match=message):
        run_training(settings_of(**job, **sections), address)
    assert files_of(job["output"]) == before


def test_a_finished_job_that_runs_again_changes_no_file(job: dict[str, Any]) -> None:
    write_json(job["output"] / "training.json", RESULT)
    before = files_of(job["output"])
    assert run_training(settings_of(**job), None) == RESULT
    assert files_of(job["output"]) == before


def test_job_json_is_written_before_the_ranks_run(job: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that ran before, as the job does not say how many."""
    ranks_started = []

    def run_ranks(settings: TrainSettings, plan: object, ranks: int, *_: object) -> None:
        assert state_of(str(settings.output)).facts["planned_steps"] == 9
        ranks_started.append(ranks)
        write_json(settings.output / "training.json", RESULT | {"steps": 9, "planned_steps": 9})

    monkeypatch.setattr(driver, "run_under_ray", run_ranks)
    run_training(settings_of(**job, run={"steps": 9}), None)
    assert ranks_started == [2]


def test_a_run_that_continues_keeps_its_ranks_where_possible(job: dict[str, Any]) -> None:
    settings = settings_of(**job)
    assert [choose_ranks(settings, gpus) for gpus in (0, 1, 2, 8)] == [2, 1, 2, 2]
    assert choose_ranks(settings_of(**job, run={"ranks": 1}), 2) == 1
    assert choose_ranks(settings_of(**job, run={"micro_batch_size": 8}), 2) == 1
    (job["output"] / "checkpoints" / "progress.json").unlink()
    assert choose_ranks(settings, 0) == 1


def test_the_status_of_a_finished_run_comes_from_its_result(job: dict[str, Any]) -> None:
    """Also if job.json names another number of steps, or epochs."""
    write_job(job["output"], settings_of(**job, run={"steps": 100}))
    write_json(job["output"] / "training.json", RESULT)
    state = state_of(str(job["output"]))
    assert state.state == "complete" and state.facts["planned_steps"] == 4
    write_json(job["output"] / "training.json", RESULT | {"planned_steps": 50, "stopped_early": True})
    assert state_of(str(job["output"])).state == "complete, stopped early at step 4 of 50"


def test_the_status_of_a_run_that_counts_in_epochs_shows_its_planned_steps(job: dict[str, Any]) -> None:
    """Six examples, five epochs, batches of eight."""
    settings = settings_of(**job, run={"steps": None, "epochs": 5.0, "batch_size": 8})
    write_job(settings.output, settings)
    assert state_of(str(job["output"])).facts["planned_steps"] == 4
    (job["output"] / "plan" / "plan.json").unlink()
    assert state_of(str(job["output"])).facts["planned_steps"] is None
