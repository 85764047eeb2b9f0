"""Without a driver, rank 0 plans a job and sends the plan, or its error, to the other ranks."""

import multiprocessing
import queue
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from cache.errors import InputError
from student.training.planning import planner
from student.training.planning.plan import TrainingPlan, job_digest, write_plan
from student.training.planning.stores import OpenStores
from student.training.settings import TrainSettings
from tests.student.training.ranks import settings_of

pytestmark = pytest.mark.slow

RANKS = 2


ERRORS = (None, InputError("no such store"), ValueError("a defect"))


def plan_on_rank(rank: int, rendezvous: Path, settings: TrainSettings, results: Any) -> None:
    """One rank. Plans once for each of ERRORS: planning raises it, or makes a plan."""
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=RANKS)
    outcomes: list[Any] = []
    for error in ERRORS:

        def plan_training(*arguments: Any, error: Exception | None = error) -> TrainingPlan:
            assert rank == 0
            if error is not None:
                raise error
            return TrainingPlan(job_digest(settings), "new", "", 7, 7, 9, [])

        planner.plan_training = plan_training
        try:
            outcomes.append(planner.plan_on_first_rank(settings, OpenStores()).tokenizer)
        except Exception as raised:
            outcomes.append((type(raised).__name__, str(raised)))
    results.put((rank, outcomes))
    dist.barrier()
    dist.destroy_process_group()


def test_every_rank_gets_the_plan_or_the_error_of_rank_0(tmp_path: Path) -> None:
    """With an older plan of the same job. Would catch ranks that train from it after rank 0 failed, or that wait."""
    settings = settings_of(tmp_path / "run", tmp_path)
    (tmp_path / "draft").mkdir()
    write_plan(settings, TrainingPlan(job_digest(settings), "old", "", 1, 1, 9, []), tmp_path / "draft")
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    arguments = (tmp_path / "rendezvous", settings, results)
    processes = [context.Process(target=plan_on_rank, args=(rank, *arguments)) for rank in range(RANKS)]
    for process in processes:
        process.start()
    try:
        by_rank = dict(results.get(timeout=240) for _ in processes)
    except queue.Empty:
        pytest.fail("a rank waits without an end")
    finally:
        for process in processes:
            process.join(30)
            process.kill()
    refusal = ("InputError", "no such store")
    assert by_rank[0] == ["new", refusal, ("ValueError", "a defect")]
    assert by_rank[1] == ["new", refusal, ("RuntimeError", "rank 0 cannot plan: ValueError('a defect')")]
