"""Ray gets the code and the plugins, and says at once what a cluster lacks."""

import os
import socket
import time
from pathlib import Path

import pytest
import ray

from cache.errors import InputError
from cache.registry import PLUGINS_VARIABLE, plugin_modules
from cluster.runtime import ray_session as module
from cluster.runtime.ray_session import code_environment, ray_session, require_cpus, require_gpus


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A plugin in a folder that only PYTHONPATH names."""
    (tmp_path / "own_plugin.py").write_text("VALUE = 7\n")
    monkeypatch.setenv(PLUGINS_VARIABLE, "own_plugin")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def test_the_code_travels_without_plugin_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PLUGINS_VARIABLE, raising=False)
    environment = code_environment()
    folder = Path(environment["working_dir"])
    assert environment == {"working_dir": str(folder), "env_vars": {}}
    assert sorted(path.name for path in folder.iterdir()) == sorted(module.CODE), "and nothing else of this folder"
    assert (folder / "cluster/jobs/demo/capture.toml").is_file() and not list(folder.rglob("__pycache__"))
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 10 << 20, "Ray takes 100 MiB"


def test_submitted_jobs_get_the_plugins(plugin: Path) -> None:
    """Would catch a job that fails on the cluster with an unknown task or objective."""
    variables = code_environment()["env_vars"]
    assert variables == {PLUGINS_VARIABLE: "own_plugin", "PYTHONPATH": str(plugin)}


@pytest.mark.slow("cluster")
def test_workers_import_the_plugins_of_the_driver(plugin: Path) -> None:
    """With variables of their own, as engines and ranks have them."""

    def load() -> tuple[list[str], int, str]:
        import own_plugin

        return plugin_modules(), own_plugin.VALUE, os.environ["OTHER"]

    with ray_session(None, 1):
        remote = ray.remote(load).options(runtime_env={"env_vars": {"OTHER": "x"}})
        modules, value, other = ray.get(remote.remote())
    assert "own_plugin" in modules and (value, other) == (7, "x")


def test_an_address_without_ray_is_refused_at_once() -> None:
    """Ray itself repeats its attempt for several minutes."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(InputError, match=f"no Ray head answers at '{address}'"), ray_session(address, 1):
            pass
    assert time.monotonic() - started < 15


def test_a_cluster_that_is_too_small_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.ray, "cluster_resources", lambda: {"CPU": 4.0, "GPU": 2.0})
    require_cpus(4)
    require_gpus(2)
    with pytest.raises(InputError, match="needs 5 CPUs at a time, the cluster has 4; lower actors"):
        require_cpus(5)
    with pytest.raises(InputError, match="needs 3 GPUs at a time, the cluster has 2"):
        require_gpus(3)
    monkeypatch.setattr(module.ray, "cluster_resources", lambda: {"CPU": 4.0})
    require_gpus(3)  # without any GPU the job runs on CPUs
