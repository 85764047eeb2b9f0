"""The threads of a process that runs a model."""

import os

import pytest

from teacher_serving.engines.process import available_threads, cpu_environment

CORES = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(("requested", "threads"), [("3", 3), ("", CORES), ("0", CORES), ("many", CORES)])
def test_threads_follow_the_environment_or_the_cores(
    monkeypatch: pytest.MonkeyPatch, requested: str, threads: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", requested)
    assert available_threads() == threads


def test_a_process_gets_the_threads_that_it_is_given() -> None:
    assert cpu_environment(5)["OMP_NUM_THREADS"] == "5"


def test_idle_threads_sleep_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert cpu_environment(2)["OMP_WAIT_POLICY"] == "passive"
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert cpu_environment(2)["OMP_WAIT_POLICY"] == "active"
