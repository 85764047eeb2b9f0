"""A capture into a bucket: two drivers share it, one is killed, an example kills its engine; all others are there."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from cache.errors import StoreError
from cache.registry import PLUGINS_VARIABLE
from cache.storage.open import open_storage
from cache.store.logit_store import LogitStore
from cluster.capture.sharing.drivers import drivers_of

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[3]
EXAMPLES, DEADLY = 4400, "green"
WORDS = ("one", "two", "three", "red", "blue")


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path) -> Path:
    """A job of three windows; one of the examples kills its engine."""
    lines = [
        {"prompt": f"say {i} {WORDS[i % 5]}", "response": " ".join(WORDS[: i % 5 + 1])} for i in range(EXAMPLES - 1)
    ]
    lines.insert(3000, {"prompt": f"say {DEADLY}", "response": "one"})
    (tmp_path / "examples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    [token] = AutoTokenizer.from_pretrained(tiny_model).encode(f" {DEADLY}", add_special_tokens=False)[-1:]
    (tmp_path / "capture.toml").write_text(
        'examples = "examples.jsonl"\nstore = "store"\nunit_size = 50\n'
        f'[teacher]\nmodel = "{tiny_model}"\nmax_tokens = 64\n[targets]\nk = 4\n'
        f'[engine]\nkind = "stand_in"\ntokens_per_s = 2500\ndeadly = {token}\n'
    )
    return tmp_path


def start(folder: Path, store: str) -> "subprocess.Popen[str]":
    """A driver in a session of its own."""
    command = [sys.executable, "-m", "cluster.commands.main", "--root", str(folder), "capture"]
    return subprocess.Popen(
        [*command, str(folder / "capture.toml"), "--set", f"store={store}"],
        cwd=folder,  # the log of a store in a bucket is written there
        env={**os.environ, PLUGINS_VARIABLE: "benchmarks.scale.stand_in_engine", "PYTHONPATH": str(ROOT)},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def committed(store: str) -> int:
    """Examples that are in the store now."""
    try:
        return len(LogitStore.open(store, unpinned=True))
    except StoreError:
        return 0


def test_drivers_share_a_bucket_and_survive_each_other(folder: Path, bucket: str) -> None:
    first, second = start(folder, bucket), start(folder, bucket)
    try:
        deadline = time.monotonic() + 180
        while committed(bucket) < 300 or len(drivers_of(open_storage(bucket))) < 2:
            assert first.poll() is None and second.poll() is None, (first.communicate(), second.communicate())
            assert time.monotonic() < deadline
            time.sleep(0.5)
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()
        _, errors = second.communicate(timeout=300)
        assert second.returncode == 0, errors[-3000:]
    finally:
        for driver in (first, second):
            if driver.poll() is None:
                os.killpg(driver.pid, signal.SIGKILL)
    with LogitStore.open(bucket) as store:
        assert len(store) == EXAMPLES - 1 and len({key.tobytes() for key in store.keys}) == EXAMPLES - 1
        assert int(store.index.counts[:, 0].sum()) == EXAMPLES - 1, "no example was committed twice"
        (reason,) = store.info().quarantine
        assert "lost its worker: its worker died" in reason
        assert all(len(record.targets.ids) for record in store[:: EXAMPLES // 40])
    storage = open_storage(bucket)
    assert storage.names("tries") == [] and drivers_of(storage) == []
