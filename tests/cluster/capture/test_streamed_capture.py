"""A capture of many windows on Ray: whatever dies in the middle, the store ends as if nothing had."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from benchmarks.scale.kills import content
from cache.registry import PLUGINS_VARIABLE
from cache.store.logit_store import LogitStore
from cluster.report.run_state import state_of

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[3]
EXAMPLES, DEADLY = 5000, "green"
ENVIRONMENT = {**os.environ, PLUGINS_VARIABLE: "benchmarks.scale.stand_in_engine", "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A job over three windows, with examples twice and an example that kills its engine, if the job says so."""
    folder = tmp_path_factory.mktemp("job")
    words = ["one", "two", "three", "red", "blue"]
    lines = [
        {"prompt": f"say {i % 4000} {words[i % 5]}", "response": " ".join(words[: i % 5 + 1])} for i in range(EXAMPLES)
    ]
    lines[3000] = {"prompt": f"say {DEADLY}", "response": "one"}
    (folder / "examples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "capture.toml").write_text(
        'examples = "examples.jsonl"\nstore = "calm"\nunit_size = 100\nactors = 2\n'
        f'[teacher]\nmodel = "{tiny_model}"\nmax_tokens = 64\n[engine]\nkind = "stand_in"\n[targets]\nk = 4\n'
    )
    return folder


def command(folder: Path, store: str, *changes: str) -> list[str]:
    options = [item for change in (f"store={store}", *changes) for item in ("--set", change)]
    job = str(folder / "capture.toml")
    return [sys.executable, "-m", "cluster.commands.main", "--root", str(folder), "capture", job, *options]


def capture(folder: Path, store: str, *changes: str, log: Path | None = None) -> str:
    line = [*command(folder, store, *changes), *(["--log", str(log)] if log else [])]
    run = subprocess.run(line, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout


@pytest.fixture(scope="module")
def calm(folder: Path) -> dict[str, bytes]:
    printed = capture(folder, "calm")
    assert f"of {EXAMPLES:,} lines 4,000 are examples to capture, 1,000 equal to earlier ones" in printed
    log = json.loads((folder / "calm.capture.json").read_text())
    assert log["planned"] == 4000 and log["input_is_complete"] and log["runs"][-1]["examples"] == 4000
    return content(folder / "calm")


def start(folder: Path, store: str, speed: str = "engine.tokens_per_s=8000") -> "subprocess.Popen[str]":
    """A driver in a session of its own, with engines that take some time."""
    return subprocess.Popen(
        command(folder, store, speed),
        cwd=ROOT,
        env=ENVIRONMENT,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_stopped_driver_a_killed_one_and_killed_actors_change_nothing(folder: Path, calm: dict[str, bytes]) -> None:
    driver = start(folder, "shaken")
    wait_for_units(folder / "shaken", 2)
    driver.send_signal(signal.SIGTERM)
    _, errors = driver.communicate(timeout=60)
    assert driver.returncode == 128 + signal.SIGTERM, errors[-2000:]
    assert "finishing the units in hand" in errors and "run the same command again to continue" in errors
    kept = len(list((folder / "shaken" / "commits").iterdir()))
    assert not list((folder / "shaken").glob("**/*.tmp"))
    driver = start(folder, "shaken")
    wait_for_units(folder / "shaken", kept + 3)
    for worker in actors(driver.pid):
        os.kill(worker, signal.SIGKILL)
    wait_for_units(folder / "shaken", kept + 8)
    assert driver.poll() is None
    os.killpg(driver.pid, signal.SIGKILL)
    driver.communicate()
    assert len(list((folder / "shaken" / "commits").iterdir())) < 40
    capture(folder, "shaken")
    assert content(folder / "shaken") == calm
    assert "0 examples and 0 tokens captured now" in capture(folder, "shaken")


def test_two_drivers_share_the_work(folder: Path, calm: dict[str, bytes]) -> None:
    """Would catch work done twice: each example is committed once."""
    first, second = (start(folder, "shared", "engine.tokens_per_s=700") for _ in range(2))
    wait_for_units(folder / "shared", 1)
    while len(state_of(str(folder / "shared")).facts["worked_on_by"] or []) < 2:
        assert first.poll() is None and second.poll() is None
        time.sleep(0.2)
    outputs = [driver.communicate(timeout=180) for driver in (first, second)]
    assert first.returncode == second.returncode == 0, outputs
    assert content(folder / "shared") == calm
    units = LogitStore.open(str(folder / "shared"), unpinned=True).index.counts[:, 0].sum()
    assert units == 4000
    captured = [int(re.search(r"capture: ([0-9,]+) examples", out)[1].replace(",", "")) for out, _ in outputs]
    assert sum(captured) == 4000 and min(captured) > 0
    assert not list((folder / "shared" / "drivers").iterdir())


def test_an_example_that_kills_its_engine_is_set_aside_and_the_others_are_captured(
    folder: Path, calm: dict[str, bytes], tiny_model: Path
) -> None:
    [token] = AutoTokenizer.from_pretrained(tiny_model).encode(f" {DEADLY}", add_special_tokens=False)[-1:]
    log = folder / "logs" / "events.jsonl"
    # Small units: each half of a unit costs another death, and a start of its engine.
    printed = capture(folder, "deadly", f"engine.deadly={token}", "unit_size=10", log=log)
    assert "in quarantine, 1: lost its worker: its worker died" in printed
    found = content(folder / "deadly")
    assert len(found) == 3999 and found.items() <= calm.items()
    assert not (folder / "deadly" / "tries").exists() or not list((folder / "deadly" / "tries").iterdir())
    require_whole_log(log, set(found))


def require_whole_log(path: Path, stored: set[str]) -> None:
    """Every example is in the log: committed, or given up, which its unit's deaths and divisions lead to."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [lines[0]["event"], lines[-1]["event"]] == ["start", "end"] and lines[-1]["captured"] == len(stored)
    assert all(line.keys() > {"time", "host", "pid"} for line in lines)
    committed = [key for line in lines if line["event"] == "committed" for key in line["keys"]]
    assert len(committed) == len(stored) and set(committed) == stored
    (given_up,) = [line for line in lines if line["event"] == "given_up"]
    (guilty,) = given_up["keys"]
    assert guilty not in stored and "its worker died" in given_up["reason"]
    lost = [line for line in lines if line["event"] == "lost_worker"]
    divided = [line for line in lines if line["event"] == "divided"]
    assert len(lost) >= 2 and len(divided) >= 3 and all(guilty in line["keys"] for line in divided)


def wait_for_units(store: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if (store / "commits").is_dir() and len(list((store / "commits").iterdir())) >= count:
            return
        time.sleep(0.05)
    raise AssertionError(f"{store} has not {count} units after two minutes")


def actors(driver: int) -> list[int]:
    """Processes of the capture actors below a driver."""
    listed = subprocess.run(["ps", "-e", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()]
    below, found = {driver}, []
    for _ in range(4):
        below |= {int(pid) for pid, parent, _ in rows if int(parent) in below}
    for pid, _, arguments in rows:
        if int(pid) in below and "CaptureWorker" in arguments:
            found.append(int(pid))
    assert found
    return found
