"""Joining Ray: an embedded one for a single machine, or the cluster at an address."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from cache.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
# The code travels to the nodes of a cluster; what must not travel with it.
EXCLUDES = ["/.git/", "/.venv/", "/runs/", "/stores/", "/tests/", "**/__pycache__/"]
CODE = {"working_dir": str(ROOT), "excludes": EXCLUDES}


@contextmanager
def ray_session(address: str | None, cpus: int) -> Iterator[None]:
    """Ray for the length of a job. An embedded Ray offers at least `cpus`, so that a small machine shares, not waits.

    Inside `ray job submit` the address comes from the environment. An embedded Ray ends with the job.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray would otherwise rewrite the accelerator variables of processes that ask for no GPU.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options = {"num_cpus": max(cpus, os.cpu_count() or 1), "include_dashboard": False} if address == "local" else {}
    try:
        ray.init(
            address=address,
            logging_level=logging.ERROR,
            log_to_driver=False,
            runtime_env=_runtime_env(address),
            **options,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(f"no Ray answers at {address!r}: {error}; start a head, or leave the address out") from error
    try:
        yield
    finally:
        ray.shutdown()


def _runtime_env(address: str) -> dict[str, Any] | None:
    if address == "local":
        return {"env_vars": {"PYTHONPATH": str(ROOT)}}
    # A job that was submitted already carries its code, and Ray refuses a second working directory.
    return None if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ else dict(CODE)


def cluster_gpus() -> int:
    """The number of GPUs in the cluster."""
    return int(ray.cluster_resources().get("GPU", 0))


def cluster_has_gpus() -> bool:
    """Whether the cluster has a GPU."""
    return cluster_gpus() > 0


def require_gpus(count: int) -> None:
    """Raise InputError where a cluster with GPUs has fewer than `count`: Ray would wait for them without a word."""
    have = cluster_gpus()
    if 0 < have < count:
        raise InputError(f"the job asks for {count} GPUs at a time, the cluster has {have}; lower actors or run.ranks")
