"""Joining Ray: an embedded one for a single machine, or the cluster at an address."""

import atexit
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import ray

from cache.errors import InputError, LogitbankError
from cache.registry import PLUGINS_VARIABLE

ROOT = Path(__file__).resolve().parents[2]
# What travels to other nodes.
CODE = ("cache", "teacher_serving", "student", "cluster", "benchmarks", "logitbank.py")
CONNECT_TIMEOUT_S = 10.0


@contextmanager
def ray_session(address: str | None, cpus: int) -> Iterator[None]:
    """Join Ray for the length of a job.

    address: Ray head; by default RAY_ADDRESS, which Ray sets inside a submitted job, or an embedded Ray that ends with
    the job. An embedded Ray offers at least `cpus`, so that processes share the cores of a small machine.
    A process that Ray has started, such as a trial of a sweep, has joined already.
    Raises InputError if no Ray head answers.
    """
    if ray.is_initialized():
        yield
        return
    address = _resolve(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Without this, Ray changes the accelerator variables of processes that request no GPU.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options = {"num_cpus": max(cpus, os.cpu_count() or 1), "include_dashboard": False} if address == "local" else {}
    _require_reachable(address)
    try:
        ray.init(
            address=address,
            logging_level=logging.ERROR,
            log_to_driver=False,
            runtime_env=_runtime_env(address),
            **options,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _no_ray(address, error) from error
    try:
        yield
    finally:
        ray.shutdown()


def is_embedded(address: str | None) -> bool:
    """Whether `ray_session` would start a Ray of its own on this machine."""
    return _resolve(address) == "local"


def code_environment() -> dict[str, Any]:
    """Ray runtime environment that carries this project's code, and the names of plugins, to other nodes."""
    return {"working_dir": str(_code_folder()), "env_vars": _plugin_variables()}


@cache
def _code_folder() -> Path:
    """A copy of the code alone, for as long as this process lives.

    Ray hashes and packs a folder one after the other: in one where a job writes meanwhile, the package would not be
    found. And data, runs and secrets beside the code would travel too.
    """
    folder = Path(tempfile.mkdtemp(prefix="logitbank-code-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in CODE:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
        elif source.is_file():
            shutil.copy2(source, folder / name)
    return folder


def cluster_gpus() -> int:
    """The number of GPUs in the cluster."""
    return int(ray.cluster_resources().get("GPU", 0))


def cluster_has_gpus() -> bool:
    """Whether the cluster has a GPU."""
    return cluster_gpus() > 0


def require_gpus(count: int) -> None:
    """Raise InputError if a cluster with GPUs has fewer than `count`. Ray would wait for them without a message."""
    available = cluster_gpus()
    if 0 < available < count:
        raise InputError(
            f"the job needs {count} GPUs at a time, the cluster has {available}; lower actors or run.ranks"
        )


def require_cpus(count: int) -> None:
    """Raise InputError if the cluster has fewer than `count` CPUs. Ray would wait for them without a message."""
    available = int(ray.cluster_resources().get("CPU", 0))
    if available < count:
        raise InputError(
            f"the job needs {count} CPUs at a time, the cluster has {available}; "
            "lower actors, engine.cpu_threads or run.ranks"
        )


def own_error(error: Exception) -> Exception:
    """The LogitbankError inside an error of Ray, if there is one; otherwise the error itself."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, LogitbankError):
        return cause
    # Ray's head then fails to reach this process, and takes it for dead.
    if os.environ.get("RAY_AUTH_MODE") == "token" and "all references to the actor were removed" in str(error):
        return InputError(
            "the Ray head cannot reach this command: it has no token, and this command uses one (RAY_AUTH_TOKEN, or "
            "~/.ray/auth_token); set RAY_AUTH_MODE=disabled"
        )
    return error


def _resolve(address: str | None) -> str:
    return address or os.environ.get("RAY_ADDRESS") or "local"


def _runtime_env(address: str) -> dict[str, Any] | None:
    if address == "local":
        paths = [str(ROOT), *_python_paths()]
        return {"env_vars": {**_plugin_variables(), "PYTHONPATH": os.pathsep.join(paths)}}
    # A job that was submitted already carries its code, and Ray refuses a second working directory.
    return None if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ else code_environment()


def _plugin_variables() -> dict[str, str]:
    """Environment variables by which processes of the cluster find the plugins of this process.

    The nodes must be able to import the modules: installed there, or in a folder of PYTHONPATH that all nodes share.
    """
    plugins = os.environ.get(PLUGINS_VARIABLE)
    if not plugins:
        return {}
    paths = _python_paths()
    return {PLUGINS_VARIABLE: plugins, **({"PYTHONPATH": os.pathsep.join(paths)} if paths else {})}


def _python_paths() -> list[str]:
    """The folders of PYTHONPATH, absolute."""
    return [str(Path(path).absolute()) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


def _require_reachable(address: str) -> None:
    """Raise InputError if nothing listens at "host:port". Ray would repeat its attempt for several minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return  # "local", "auto" and other names that Ray resolves itself
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise _no_ray(address, error) from error


def _no_ray(address: str, error: Exception) -> InputError:
    return InputError(f"no Ray head answers at {address!r}: {error}; start one, or leave the address out")
