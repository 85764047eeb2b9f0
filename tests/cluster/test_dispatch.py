"""Work survives the death of actors; a unit that kills every worker is named."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray

from cache.errors import InputError, StoreError
from cluster.dispatch import dispatch, wait_ready
from cluster.ray_session import ray_session


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


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[None]:
    with ray_session(None, 2):
        yield


@pytest.fixture
def start(tmp_path: Path) -> Any:
    return partial(ray.remote(Mortal).options(max_restarts=-1, num_cpus=0).remote, str(tmp_path))


def run(start: Any, units: list[str]) -> dict[int, str]:
    workers = [start(), start()]
    wait_ready(workers)
    done: dict[int, str] = {}
    dispatch(start, workers, units, done.__setitem__)
    for worker in workers:
        ray.kill(worker)
    return done


def test_a_unit_whose_worker_died_is_done_again(start: Any) -> None:
    units = ["a", "fragile 1", "b", "fragile 2", "c", "d"]
    assert run(start, units) == {i: unit.upper() for i, unit in enumerate(units)}


def test_a_unit_that_kills_every_worker_is_named(start: Any) -> None:
    with pytest.raises(StoreError, match="unit 2 of 3 lost its worker 3 times"):
        run(start, ["a", "deadly", "b"])


def test_an_error_of_ours_arrives_as_itself(start: Any) -> None:
    with pytest.raises(InputError, match="this unit is wrong"):
        run(start, ["a", "wrong"])
