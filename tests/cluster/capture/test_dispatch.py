"""Units of dead actors are captured again; of a unit that kills every worker, only the guilty example is given up."""

import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from cache.errors import InputError, StoreError
from cache.store.segments.keys import KEY
from cluster.capture.dispatch import Dispatcher, wait_ready
from cluster.capture.input.work import Work
from cluster.runtime.ray_session import ray_session

pytestmark = pytest.mark.slow


class Mortal:
    """Captures a unit of words; dies on those that a file does not excuse yet."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def ready(self) -> bool:
        return True

    def capture(self, units: list[list[str]], number: int, places: Any) -> list[str]:
        words = [units[number][place] for place in places]
        for word in words:
            if word == "wrong":
                raise InputError("this unit is wrong")
            if word == "failing":
                raise RuntimeError("kernel panic\nout of luck")
            if word == "deadly":
                os._exit(1)
            if word.startswith("fragile") and not (self._folder / word).exists():
                (self._folder / word).touch()
                os._exit(1)
        return [word.upper() for word in words]


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


class Words:
    """A source of units, each with its words, and what happened to them. Not each is ready when it is asked for."""

    def __init__(self, units: list[str]) -> None:
        self.left = [self._work(i, unit.split(", ")) for i, unit in enumerate(units)]
        self.results: list[str] = []
        self.given_up: dict[str, str] = {}
        self.deaths: list[tuple[str, int]] = []
        self.joins: list[int] = []
        self._asked = 0

    @staticmethod
    def _work(number: int, words: list[str]) -> Work:
        places = np.arange(len(words), dtype=np.int32)
        # Two responses to the example "pair", which stay together.
        examples = np.array([words.index("pair") if word == "pair" else i for i, word in enumerate(words)])
        return Work([words], 0, places, examples, np.zeros(len(words), KEY), f"unit {number + 1}")

    def take(self) -> Work | None:
        self._asked += 1
        return self.left.pop(0) if self.left and self._asked % 3 else None

    @property
    def is_exhausted(self) -> bool:
        return not self.left

    def done(self, work: Work, result: list[str]) -> None:
        self.results += result

    def joined(self, workers: int) -> None:
        self.joins.append(workers)

    def died(self, work: Work) -> None:
        self.deaths.append((work.name, work.deaths))

    def divided(self, work: Work) -> None:
        self.deaths.append((work.name, work.deaths))

    def guilty(self, work: Work, reason: str) -> None:
        self.given_up |= {work.units[0][place]: reason for place in work.places}

    def polled(self) -> None: ...


def run(start: Any, units: list[str], in_hand: int = 1) -> Words:
    workers, _ = wait_ready([start(), start()], 2)
    words = Words(units)
    Dispatcher(start, workers, words, words, in_hand).run()
    for worker in workers:
        ray.kill(worker)
    return words


@pytest.mark.parametrize("in_hand", [1, 2])
def test_a_unit_whose_worker_died_is_done_again(start: Any, in_hand: int) -> None:
    units = ["a", "fragile 1", "b", "fragile 2", "c", "d"]
    words = run(start, units, in_hand)
    assert sorted(words.results) == sorted(unit.upper() for unit in units) and not words.given_up


def test_a_unit_does_not_answer_for_a_worker_that_is_not_back_yet(tmp_path: Path) -> None:
    """Calls to a worker that restarts fail at once. They are no deaths of their unit."""
    worker = ray.remote(SlowToRestart).options(max_restarts=-1, num_cpus=0).remote(str(tmp_path))
    wait_ready([worker], 1)
    words = Words(["fragile 1", "a"])
    Dispatcher(lambda: worker, [worker], words, words, units_per_worker=6).run()
    ray.kill(worker)
    assert sorted(words.results) == ["A", "FRAGILE 1"] and max(deaths for _, deaths in words.deaths) == 1


class Late(Mortal):
    """Is ready after some seconds, dies once before that, and then tells by its words that it has worked."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        time.sleep(2)
        if not (self._folder / "late").exists():
            (self._folder / "late").touch()
            os._exit(1)

    def capture(self, units: list[list[str]], number: int, places: Any) -> list[str]:
        return [f"late {word}" for word in super().capture(units, number, places)]


def test_workers_join_while_others_work(tmp_path: Path) -> None:
    """Would catch a capture that waits until all of its engines have a place in the cluster."""
    early = ray.remote(Mortal).options(num_cpus=0).remote(str(tmp_path))
    late = ray.remote(Late).options(max_restarts=-1, num_cpus=0).remote(str(tmp_path))
    never = ray.remote(Mortal).options(num_cpus=10_000).remote(str(tmp_path))
    workers, joining = wait_ready([late, never, early], 1)
    assert workers == [early] and set(joining.values()) == {late, never}

    class Slowly(Words):
        """Has a next unit until the late worker has done one."""

        def take(self) -> Work | None:
            time.sleep(0.05)
            if not self.left and not any(word.startswith("late") for word in self.results):
                self.left = [self._work(0, ["more"])]
            return super().take()

        @property
        def is_exhausted(self) -> bool:
            return any(word.startswith("late") for word in self.results)

    words = Slowly(["a", "b"])
    Dispatcher(lambda: early, workers, words, words, 2, joining).run()
    assert words.joins == [2] and {"A", "B"} <= set(words.results) and not words.deaths
    for worker in (early, late, never):
        ray.kill(worker)


def test_units_in_hand_survive_workers_that_are_gone_for_good(tmp_path: Path) -> None:
    """A worker that Ray does not start again is replaced once, however many of its units tell of it."""
    started: list[Any] = []

    def start_one() -> Any:
        started.append(ray.remote(Mortal).options(max_restarts=0, num_cpus=0).remote(str(tmp_path)))
        return started[-1]

    units = ["fragile 1", "a", "fragile 2", "b", "c", "d", "e"]
    assert sorted(run(start_one, units, in_hand=2).results) == sorted(unit.upper() for unit in units)
    assert 3 <= len(started) <= 4


@pytest.mark.parametrize("in_hand", [1, 2])
@pytest.mark.parametrize(
    ("unit", "reason"), [("deadly", "its worker died: "), ("failing", "its worker failed: RuntimeError: kernel panic")]
)
def test_of_a_unit_that_kills_every_worker_one_example_is_given_up(
    start: Any, in_hand: int, unit: str, reason: str
) -> None:
    """Its neighbours are captured, and those of other units in hand are not blamed. Would catch the end of the job."""
    words = run(start, ["a", f"p, q, {unit}, pair, pair, r", "b", "c"], in_hand)
    assert list(words.given_up) == [unit] and reason in words.given_up[unit]
    assert sorted(words.results) == sorted(word.upper() for word in ["a", "p", "q", "pair", "pair", "r", "b", "c"])
    assert all(deaths == 1 for name, deaths in words.deaths if name != "unit 2"), "they ran beside it once"


def test_responses_to_one_example_are_given_up_together(start: Any) -> None:
    words = Words(["pair, deadly, pair, a"])
    (work,) = words.left
    first, second = work.halves()
    assert first.places.tolist() == [0, 2] and not first.halves() and second.places.tolist() == [1, 3]


def test_a_job_whose_examples_all_kill_their_worker_ends(start: Any) -> None:
    """Then it is not the fault of the examples, and they do not belong into quarantine."""
    with pytest.raises(StoreError, match="3 examples in a row lost their worker"):
        run(start, ["failing, failing, failing, failing, failing"])


def test_an_error_of_ours_arrives_as_itself(start: Any) -> None:
    with pytest.raises(InputError, match="this unit is wrong"):
        run(start, ["a", "wrong"])
