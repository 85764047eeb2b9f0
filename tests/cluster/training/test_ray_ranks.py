"""Ctrl-C, and an error of a rank, reach the command while Ray Train runs."""

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cache.errors import InputError
from cluster.training import ray_ranks
from cluster.training.driver import run_training
from cluster.training.ray_ranks import run_under_ray
from student.training.planning.plan import TrainingPlan
from tests.student.training.ranks import TOPK, make_pretrained, make_store, settings_of

PLAN = TrainingPlan("", "", "", 1, 1, 9, [])


@pytest.fixture
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """No actor keeps errors: these tests have no Ray."""
    monkeypatch.setattr(ray_ranks, "_first_error", lambda: None)


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


@pytest.mark.usefixtures("heeds_interrupts", "_no_ray")
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


@pytest.mark.usefixtures("_no_ray")
def test_an_error_of_a_rank_ends_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.train.torch.TorchTrainer", FailingTrainer)
    with pytest.raises(RuntimeError, match="a rank failed"):
        run_under_ray(settings_of(tmp_path, tmp_path), PLAN, 2, False, lambda: None)


# Code of a model that fails in ranks alone, and counts how often it is run there.
FAILING = """
import os
from transformers import LlamaForCausalLM
if "RANK" in os.environ:
    with open({log!r}, "a") as file:
        file.write(os.environ["RANK"] + chr(10))
    raise ValueError("these weights are broken")
class Own(LlamaForCausalLM):
    pass
"""


@pytest.mark.slow
def test_an_error_of_the_job_is_met_once(tmp_path: Path, tiny_model: Path) -> None:
    """On real ranks. Would catch restarts that repeat what no restart can change, and wait for a model each time."""
    store = make_store(tmp_path / "store", tiny_model, TOPK, 9)
    base = make_pretrained(tmp_path / "base", tiny_model)
    log = tmp_path / "starts"
    (base / "own.py").write_text(FAILING.format(log=str(log)))
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModelForCausalLM": "own.Own"}}))
    model = {"pretrained": str(base), "trust_remote_code": True}
    settings = settings_of(tmp_path / "run", store, model=model, run={"ranks": 2, "zero_stage": 3, "max_failures": 3})
    with pytest.raises(InputError, match="these weights are broken"):
        run_training(settings, None)
    assert sorted(log.read_text().split()) in (["0"], ["1"], ["0", "1"])
