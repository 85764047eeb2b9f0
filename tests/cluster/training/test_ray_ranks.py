"""Ctrl-C, and an error of a rank, reach the command while Ray Train runs."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cluster.training.ray_ranks import run_under_ray
from student.training.planning.plan import TrainingPlan
from tests.student.training.ranks import settings_of

PLAN = TrainingPlan("", "", "", 1, 1, 9, [])


class EndlessTrainer:
    """In the place of Ray Train's TorchTrainer: trains until the test ends."""

    ended = threading.Event()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        assert options["train_loop_config"]["plan"]["vocab_size"] == 1

    def fit(self) -> None:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        self.ended.wait(60)


class FailingTrainer:
    """A trainer whose rank raises."""

    def __init__(self, *arguments: Any, **options: Any) -> None: ...

    def fit(self) -> None:
        raise RuntimeError("a rank failed")


@pytest.mark.usefixtures("heeds_interrupts")
def test_an_interrupt_reaches_the_command_while_ranks_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch a training that waits for Ray Train, or ends with its exit code."""
    monkeypatch.setattr("ray.train.torch.TorchTrainer", EndlessTrainer)
    started = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_under_ray(settings_of(tmp_path, tmp_path), PLAN, 2, False, lambda: None)
    finally:
        EndlessTrainer.ended.set()
    assert time.monotonic() - started < 30


def test_an_error_of_a_rank_ends_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.train.torch.TorchTrainer", FailingTrainer)
    with pytest.raises(RuntimeError, match="a rank failed"):
        run_under_ray(settings_of(tmp_path, tmp_path), PLAN, 2, False, lambda: None)
