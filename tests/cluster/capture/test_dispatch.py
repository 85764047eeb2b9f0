"""Units of dead actors are captured again; a unit that kills every worker is named."""

import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray

from cache.errors import InputError, StoreError
from cluster.capture.dispatch import Dispatcher, wait_ready
from cluster.runtime.ray_session import ray_session

pytestmark = pytest.mark.slow


class Mortal:
    """Captures a unit; dies on those that a file does not excuse yet."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def ready(self) -> bool:
        return True

    def capture(self, unit: str) -> str:
        if unit == "wrong":
            raise InputError("this unit is wrong")
        if unit == "deadly":
            os._exit(1)
        if unit.startswith("fragile") and not (self._folder / unit).exists():
            (self._folder / unit).touch()
            os._exit(1)
        return unit.upper()


class SlowToRestart(Mortal):
    """Needs seconds to start again, as an engine does."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        if any(self._folder.iterdir()):
            time.sleep(4)


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[None]:
    with ray_session(None, 2):
        yield


@pytest.fixture
def start(tmp_path: Path) -> Any:
    return partial(ray.remote(Mortal).options(max_restarts=-1, num_cpus=0).remote, str(tmp_path))


def run(start: Any, units: list[str], in_hand: int = 1) -> dict[int, str]:
    workers = [start(), start()]
    wait_ready(workers)
    done: dict[int, str] = {}
    Dispatcher(start, workers, units, in_hand).run(done.__setitem__)
    for worker in workers:
        ray.kill(worker)
    return done


@pytest.mark.parametrize("in_hand", [1, 2])
def test_a_unit_whose_worker_died_is_done_again(start: Any, in_hand: int) -> None:
    units = ["a", "fragile 1", "b", "fragile 2", "c", "d"]
    assert run(start, units, in_hand) == {i: unit.upper() for i, unit in enumerate(units)}


def test_a_unit_does_not_answer_for_a_worker_that_is_not_back_yet(tmp_path: Path) -> None:
    """Calls to a worker that restarts fail at once. They are no deaths of their unit."""
    worker = ray.remote(SlowToRestart).options(max_restarts=-1, num_cpus=0).remote(str(tmp_path))
    wait_ready([worker])
    done: dict[int, str] = {}
    Dispatcher(lambda: worker, [worker], ["fragile 1", "a"], units_per_worker=6).run(done.__setitem__)
    ray.kill(worker)
    assert done == {0: "FRAGILE 1", 1: "A"}


def test_units_in_hand_survive_workers_that_are_gone_for_good(tmp_path: Path) -> None:
    """A worker that Ray does not start again is replaced once, however many of its units tell of it."""
    started: list[Any] = []

    def start_one() -> Any:
        started.append(ray.remote(Mortal).options(max_restarts=0, num_cpus=0).remote(str(tmp_path)))
        return started[-1]

    units = ["fragile 1", "a", "fragile 2", "b", "c", "d", "e"]
    assert run(start_one, units, in_hand=2) == {i: unit.upper() for i, unit in enumerate(units)}
    assert 3 <= len(started) <= 4


@pytest.mark.parametrize("in_hand", [1, 2])
def test_a_unit_that_kills_every_worker_is_named(start: Any, in_hand: int) -> None:
    """And not one that was in hand beside it."""
    with pytest.raises(StoreError, match="unit 2 of 4 lost its worker 3 times"):
        run(start, ["a", "deadly", "b", "c"], in_hand)


def test_an_error_of_ours_arrives_as_itself(start: Any) -> None:
    with pytest.raises(InputError, match="this unit is wrong"):
        run(start, ["a", "wrong"])
