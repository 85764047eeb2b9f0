"""A capture on several nodes of Ray in which something is killed every few seconds, at random, until it has ended.

    python -m benchmarks.scale.kills --minutes 10 --save

Killed are the engine of an actor, a node with its actors, the driver, and the head with everything; a driver also gets
SIGTERM. What was killed comes back: Ray starts engines again, nodes join again, and the command is run again. After
--minutes nothing is killed any more. The store must then equal an undisturbed one, example by example: `wrong` counts
examples that are missing, more, different or in quarantine. Stand-in engines, paced, two at most; the parts are real.
"""

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from ray.cluster_utils import Cluster

from benchmarks.common.harness import finish
from benchmarks.scale.__main__ import PLUGIN, ROOT, Job, make_model, write_examples
from cache.errors import StoreError
from cache.registry import PLUGINS_VARIABLE
from cache.store.logit_store import LogitStore

KINDS = ("actor", "node", "driver", "terminated driver", "head")
# How often each is chosen: a head takes longest to come back.
WEIGHTS = (5, 3, 3, 2, 1)


class Arena:
    """A cluster of a head and two nodes with an engine each, and a driver."""

    def __init__(self, folder: Path, model: Path, examples: int, pace: float) -> None:
        self._folder, self._pace, self._examples = folder, pace, examples
        Job(folder, model, 16)  # writes the job file
        self._drivers = 0
        self.begin()

    def begin(self) -> None:
        """A new head with its nodes, and a driver."""
        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self._nodes = [self._cluster.add_node(num_cpus=1) for _ in range(2)]
        self.drive()

    def drive(self) -> None:
        """Run the command."""
        self._drivers += 1
        changes = {
            "examples": self._folder / f"{self._examples}.jsonl",
            "store": self._folder / "store",
            "actors": "{ min = 1, max = 2 }",
            "engine.tokens_per_s": self._pace,
        }
        words = [word for name, value in changes.items() for word in ("--set", f"{name}={value}")]
        line = ["-m", "cluster.commands.main", "capture", str(self._folder / "job.toml"), *words]
        self.log = self._folder / f"driver{self._drivers}.log"
        with self.log.open("wb") as log:
            self.driver = subprocess.Popen(
                [sys.executable, *line, "--address", self._cluster.address],
                cwd=ROOT,
                env=environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self, kind: str) -> bool:
        """Kill something of a kind, and let it come back. Returns whether there was one."""
        if kind == "actor":
            found = engines()
            if not found:
                return False
            with contextlib.suppress(ProcessLookupError):
                os.kill(random.choice(found), signal.SIGKILL)
        elif kind == "node":
            node = self._nodes.pop(random.randrange(len(self._nodes)))
            self._cluster.remove_node(node, allow_graceful=False)
            self._nodes.append(self._cluster.add_node(num_cpus=1))
        elif kind == "head":
            self._end_driver(signal.SIGKILL)
            self._cluster.shutdown()
            self.begin()
        else:
            self._end_driver(signal.SIGKILL if kind == "driver" else signal.SIGTERM)
            self.drive()
        return True

    def end(self) -> None:
        """End the cluster."""
        self._end_driver(signal.SIGKILL)
        self._cluster.shutdown()

    def _end_driver(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.driver.pid, number)
        try:
            self.driver.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(self.driver.pid, signal.SIGKILL)
            self.driver.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=2.0, help="of killing")
    parser.add_argument("--every", type=float, default=6.0, help="seconds between two kills, on average")
    parser.add_argument("--examples", type=int, default=20_000)
    parser.add_argument("--tokens-per-s", type=float, default=2000.0, help="pace of one engine while things are killed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", action="store_true", help="keep the result in benchmarks/results/")
    options = parser.parse_args()
    os.environ["RAY_AUTH_MODE"] = "disabled"
    with tempfile.TemporaryDirectory(prefix="logitbank-") as folder:
        results = measure(Path(folder), options)
    finish("scale.kills", results, options.save, "scale_kills")
    if results["wrong"]:
        sys.exit(1)


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Kill for some minutes, let the capture end, and compare."""
    random.seed(options.seed)
    model = make_model(folder / "model")
    write_examples(folder / f"{options.examples}.jsonl", options.examples)
    calm = Job(folder, model, 16).capture(options.examples, "calm", 1, 0.0)
    arena = Arena(folder, model, options.examples, options.tokens_per_s)
    killed: Counter[str] = Counter()
    exits: Counter[int] = Counter()
    started = time.monotonic()
    try:
        while time.monotonic() - started < options.minutes * 60:
            time.sleep(random.expovariate(1 / options.every))
            if (code := arena.driver.poll()) is not None:
                exits[code] += 1
                if code == 0:
                    break
                arena.drive()
            (kind,) = random.choices(KINDS, WEIGHTS)
            killed[kind] += arena.kill(kind)
            print(f"{time.monotonic() - started:6.0f} s: killed {sum(killed.values())}, last {kind}", flush=True)
        while (code := arena.driver.wait()) != 0:
            exits[code] += 1
            print(arena.log.read_text()[-1500:], flush=True)
            arena.drive()
        seconds = time.monotonic() - started
    finally:
        arena.end()
    return {
        "killed": dict(killed),
        "kills": sum(killed.values()),
        "exit_codes_of_drivers": {str(code): count for code, count in exits.items()},
        "seconds": seconds,
        "examples": options.examples,
        "undisturbed_seconds": calm["seconds"],
        **compare(folder / "calm", folder / "store"),
    }


def compare(calm: Path, store: Path) -> dict[str, int]:
    """How a store differs from an undisturbed one."""
    expected, found = content(calm), content(store)
    with LogitStore.open(str(store)) as opened:
        committed = int(opened.index.counts[:, 0].sum())
        quarantined = sum(opened.info().quarantine.values())
    different = sum(found[key] != rows for key, rows in expected.items() if key in found)
    missing, more = len(expected.keys() - found.keys()), len(found.keys() - expected.keys())
    twice = committed - len(found)
    return {
        "wrong": different + missing + more + quarantined,
        "different": different,
        "missing": missing,
        "more": more,
        "quarantined": quarantined,
        "committed_twice": twice,
    }


def content(store: Path) -> dict[str, bytes]:
    """What a store has of each example, by its key."""
    found = {}
    for record in LogitStore.open(str(store)):
        targets = record.targets
        arrays = (record.tokenized.tokens, targets.offsets, targets.ids, targets.logprobs, record.token_logprobs)
        if record.key in found:
            raise StoreError(f"{store}: {record.key} is there twice")
        found[record.key] = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
    return found


def engines() -> list[int]:
    """Processes of capture actors."""
    listed = subprocess.run(["ps", "-e", "-o", "pid=,args="], capture_output=True, text=True, check=True).stdout
    return [int(line.split(None, 1)[0]) for line in listed.splitlines() if "ray::CaptureWorker" in line]


def environment() -> dict[str, str]:
    """Of drivers and, through them, of actors."""
    more = {PLUGINS_VARIABLE: PLUGIN, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"}
    return {**os.environ, **more}


if __name__ == "__main__":
    main()
