"""The Slurm script with stand-ins for Slurm's commands on one machine: a real Ray, a real capture, a real signal."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from cache.registry import PLUGINS_VARIABLE

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "cluster/deploy/slurm/ray.sbatch"
# Runs the command here. A node of the job is this machine.
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""
STAND_INS = {
    "srun": SRUN,
    "scontrol": "#!/bin/sh\necho this-node\n",
    "hostname": "#!/bin/sh\necho 127.0.0.1\n",
}


@pytest.fixture
def job(tmp_path: Path, tiny_model: Path) -> Path:
    lines = [{"prompt": f"say {i}", "response": "one two three"} for i in range(2000)]
    (tmp_path / "examples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "capture.toml").write_text(
        f'examples = "{tmp_path}/examples.jsonl"\nstore = "{tmp_path}/store"\nunit_size = 50\nactors = 1\n'
        f'[teacher]\nmodel = "{tiny_model}"\nmax_tokens = 64\n'
        '[engine]\nkind = "stand_in"\ntokens_per_s = 1000\n[targets]\nk = 4\n'
    )
    (tmp_path / "bin").mkdir()
    for name, text in STAND_INS.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def start(job: Path, number: int, *command: str) -> "subprocess.Popen[str]":
    variables = {
        "PATH": f"{job / 'bin'}:{os.environ['PATH']}",
        "LOGITBANK_VENV": str(Path(sys.executable).parents[1]),
        "SLURM_JOB_ID": str(number),
        "SLURM_JOB_NODELIST": "this-node",
        "SLURM_NNODES": "1",
        "SLURM_CPUS_PER_TASK": "4",
        "PYTHONPATH": str(ROOT),
        PLUGINS_VARIABLE: "benchmarks.scale.stand_in_engine",
    }
    return subprocess.Popen(
        ["bash", str(SCRIPT), *command],
        env={name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def end(process: "subprocess.Popen[str]") -> str:
    """What the script printed. Its Ray ends with it, as with a job of Slurm."""
    try:
        process.wait(180)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.stdout is not None
    return process.stdout.read()


def test_a_capture_is_interrupted_by_slurm_and_continued(job: Path) -> None:
    number = 20000 + os.getpid() % 5000
    process = start(job, number, "capture", str(job / "capture.toml"))
    commits, deadline = job / "store/commits", time.monotonic() + 150
    while not commits.is_dir() or len(list(commits.iterdir())) < 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.3)
    os.kill(process.pid, signal.SIGTERM)  # to the script alone, as --signal=B:TERM does
    printed = end(process)
    assert process.returncode == 143 and "finishing the units in hand" in printed, printed[-2000:]
    assert len(list(commits.iterdir())) < 40
    again = start(job, number + 1, "capture", str(job / "capture.toml"), "--set", "engine.tokens_per_s=1000000")
    printed = end(again)
    assert again.returncode == 0 and len(list(commits.iterdir())) == 40, printed[-2000:]


def test_without_a_command_it_says_what_to_give(job: Path) -> None:
    process = start(job, 1)
    assert "give a command of logitbank" in end(process) and process.returncode == 2
