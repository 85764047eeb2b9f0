"""A capture on several nodes of Ray: nodes join, one is lost, and the store has every example once."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from cache.registry import PLUGINS_VARIABLE
from cache.store.logit_store import LogitStore

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = 600
ENVIRONMENT = {**os.environ, PLUGINS_VARIABLE: "benchmarks.scale.stand_in_engine", "PYTHONPATH": str(ROOT)}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


def test_nodes_join_and_go(cluster: Cluster, tmp_path: Path, tiny_model: Path) -> None:
    lines = [{"prompt": f"say {i}", "response": "one two three"} for i in range(EXAMPLES)]
    (tmp_path / "examples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "capture.toml").write_text(
        'examples = "examples.jsonl"\nstore = "store"\nunit_size = 20\nactors = { min = 1, max = 3 }\n'
        f'[teacher]\nmodel = "{tiny_model}"\nmax_tokens = 64\n'
        '[engine]\nkind = "stand_in"\ntokens_per_s = 30\n[targets]\nk = 4\n'
    )
    command = ["--root", str(tmp_path), "capture", str(tmp_path / "capture.toml"), "--address", cluster.address]
    mistaken = subprocess.run(
        [sys.executable, "-m", "cluster.commands.main", *command],
        cwd=ROOT,
        env=ENVIRONMENT | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a token of which the cluster does not know"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert mistaken.returncode == 2 and "set RAY_AUTH_MODE=disabled" in mistaken.stderr, mistaken.stderr[-2000:]
    driver = subprocess.Popen(
        [sys.executable, "-m", "cluster.commands.main", *command],
        cwd=ROOT,
        env=ENVIRONMENT | {"RAY_AUTH_MODE": "disabled"},  # the token of a user is for clusters that ask for it
        stdout=subprocess.PIPE,
        stderr=(tmp_path / "errors").open("w"),
        text=True,
    )

    def wait(what: str) -> None:
        deadline = time.monotonic() + 120
        while what not in (tmp_path / "errors").read_text():
            assert driver.poll() is None and time.monotonic() < deadline, (tmp_path / "errors").read_text()[-2000:]
            time.sleep(0.2)

    commits = tmp_path / "store" / "commits"
    while not commits.is_dir():
        assert driver.poll() is None, (tmp_path / "errors").read_text()[-2000:]
        time.sleep(0.2)
    doomed = cluster.add_node(num_cpus=1)
    wait("another engine has joined; 2 work now")
    cluster.add_node(num_cpus=1)
    wait("another engine has joined; 3 work now")
    cluster.remove_node(doomed, allow_graceful=False)
    before = len(list(commits.iterdir()))
    while len(list(commits.iterdir())) < before + 2:
        assert driver.poll() is None, (tmp_path / "errors").read_text()[-2000:]
        time.sleep(0.2)
    driver.send_signal(signal.SIGTERM)
    driver.communicate(timeout=240)
    assert driver.returncode == 128 + signal.SIGTERM, (tmp_path / "errors").read_text()[-2000:]
    assert len(list(commits.iterdir())) < EXAMPLES / 20
    fast = subprocess.run(
        [sys.executable, "-m", "cluster.commands.main", *command, "--set", "engine.tokens_per_s=1000000"],
        cwd=ROOT,
        env=ENVIRONMENT | {"RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert fast.returncode == 0, fast.stderr[-2000:]
    with LogitStore.open(str(tmp_path / "store")) as store:
        assert len(store) == EXAMPLES and len({record.key for record in store}) == EXAMPLES
