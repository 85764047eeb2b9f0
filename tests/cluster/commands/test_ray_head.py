"""Jobs on a real Ray head with token authentication: submitted, listed, followed, stopped in the middle, continued."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cache.registry import PLUGINS_VARIABLE

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[3]
TOKEN = "a token of at least so many letters, for this test alone"


class Head:
    """A Ray head of this machine, and commands that are sent to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ports = [_free_port() for _ in range(5)]
        self.address = f"http://127.0.0.1:{ports[1]}"
        self._temporary = tempfile.mkdtemp(prefix="ray")  # Ray's sockets need a short path
        environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "PYTHONPATH": str(ROOT)}
        ray = str(Path(sys.executable).with_name("ray"))
        options = ["--head", "--block", f"--port={ports[0]}", f"--dashboard-port={ports[1]}", "--num-cpus=4"]
        # By default all heads of a machine ask for one port for their agents, and without an agent no job can run.
        options += [f"--dashboard-agent-listen-port={ports[2]}", f"--metrics-export-port={ports[3]}"]
        options += [f"--ray-client-server-port={ports[4]}"]
        self.metrics = f"http://127.0.0.1:{ports[3]}/metrics"
        self._process = subprocess.Popen(
            [ray, "start", *options, f"--temp-dir={self._temporary}", "--disable-usage-stats"],
            env=environment,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def run(self, *arguments: str, token: str | None = TOKEN) -> "subprocess.CompletedProcess[str]":
        environment = {
            **os.environ,
            PLUGINS_VARIABLE: "benchmarks.scale.stand_in_engine",
            "PYTHONPATH": str(ROOT),
            "HOME": str(self.folder),
        }
        environment |= {"RAY_AUTH_TOKEN": token} if token else {}
        return subprocess.run(
            [sys.executable, "-m", "cluster.commands.main", "--root", str(self.folder), *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )

    def jobs(self) -> list[dict[str, Any]]:
        jobs: list[dict[str, Any]] = json.loads(self.run("jobs", "--address", self.address, "--json").stdout)["jobs"]
        return jobs

    def end(self) -> None:
        os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(3)
        except subprocess.TimeoutExpired:  # Ray gives its processes half a minute
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(60)
        shutil.rmtree(self._temporary, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Head]:
    folder = tmp_path_factory.mktemp("job")
    lines = [{"prompt": f"say {i}", "response": "one two three"} for i in range(2000)]
    (folder / "examples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "capture.toml").write_text(
        'examples = "examples.jsonl"\nstore = "store"\nunit_size = 50\nactors = 1\n'
        f'[teacher]\nmodel = "{tiny_model}"\nmax_tokens = 64\n'
        '[engine]\nkind = "stand_in"\ntokens_per_s = 1000\n[targets]\nk = 4\n'
    )
    head = Head(folder)
    try:
        deadline = time.monotonic() + 90
        while head.run("jobs", "--address", head.address).returncode:
            assert time.monotonic() < deadline, head.run("jobs", "--address", head.address).stderr
        yield head
    finally:
        head.end()


def metrics_of(head: Head, tag: str) -> set[str]:
    """Names of a capture's metrics that are not 0, as Prometheus reads them."""
    lines = urllib.request.urlopen(head.metrics, timeout=10).read().decode().splitlines()
    start = "ray_logitbank_capture_"
    shown = [line for line in lines if line.startswith(start) and tag in line and float(line.split()[-1]) > 0]
    return {line[len(start) : line.index("{")] for line in shown}


def test_a_job_is_submitted_stopped_and_continued(head: Head) -> None:
    submit = ["submit", "--address", head.address, "--python", sys.executable]
    sent = head.run(*submit, "--no-wait", "--", "capture", str(head.folder / "capture.toml"))
    assert sent.returncode == 0, sent.stderr
    job = sent.stdout.split()[1]
    commits = head.folder / "store" / "commits"
    deadline = time.monotonic() + 120
    while not commits.is_dir() or len(list(commits.iterdir())) < 2:
        assert time.monotonic() < deadline, head.run("logs", "--address", head.address, job).stdout[-2000:]
        time.sleep(0.5)
    running = head.jobs()
    assert [(each["job"], each["status"]) for each in running] == [(job, "RUNNING")]
    assert running[0]["command"] == f"logitbank capture {head.folder / 'capture.toml'}"
    store = f'place="{head.folder / "store"}"'
    while not {"captured_total", "rows_total", "queue", "engines"} <= (shown := metrics_of(head, store)):
        assert time.monotonic() < deadline, shown
        time.sleep(0.5)
    stopped = head.run("stop", "--address", head.address, job, "--json")
    assert (stopped.returncode, json.loads(stopped.stdout)) == (0, {"job": job, "status": "STOPPED"})
    kept = len(list(commits.iterdir()))
    log = head.run("logs", "--address", head.address, job).stdout
    assert kept < 40 and "finishing the units in hand" in log, log[-2000:]
    fast = ["--", "capture", str(head.folder / "capture.toml"), "--set", "engine.tokens_per_s=1000000"]
    ended = head.run(*submit, *fast)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr
    assert len(list(commits.iterdir())) == 40 and ended.stdout.rstrip().endswith(": SUCCEEDED")


def test_a_job_that_fails_ends_with_the_exit_code_of_its_command(head: Head) -> None:
    failed = head.run(
        *("submit", "--address", head.address, "--python", sys.executable),
        *("--", "capture", str(head.folder / "capture.toml"), "--set", "examples=missing.jsonl"),
    )
    assert failed.returncode == 2 and "missing.jsonl" in failed.stdout, failed.stdout + failed.stderr


def test_without_the_token_the_head_refuses(head: Head) -> None:
    refused = head.run("jobs", "--address", head.address, token=None)
    assert refused.returncode == 2 and "needs its token" in refused.stderr, refused.stderr
