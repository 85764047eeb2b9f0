"""What a capture that starts again needs to know what its store has: seconds, and memory of the node.

    python -m benchmarks.scale.resume --units 1000,10000,100000

Commits and index are real; the parts are not there, because none is read. A snapshot lists all but the last --new
commits, which are read one by one, as after a driver that was killed. Each figure is of a process of its own: `keys_s`
until it has the sorted keys, and `keys_mib`, the highest memory above that of a process with the same imports. Named
limit: the bytes of the keys, read from a file and kept. Beside it, the whole index, as readers have it. --long: a
million units with 100 million examples, which takes about an hour and 20 GB of disk.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.harness import finish, spread
from benchmarks.common.rows import simulated_rows
from benchmarks.store.records import as_records
from benchmarks.store.scale import add_commits
from cache.rows.spec import StoreSpec, TargetSpec
from cache.storage.local import LocalStorage
from cache.store.commits import create_store, read_spec
from cache.store.snapshot_reading import current_index, current_keys
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit

ROOT = Path(__file__).resolve().parents[2]
WAYS = ("keys", "index", "limit")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", default="1000,10000,100000", help="sizes of the stores (default: %(default)s)")
    parser.add_argument("--examples", type=int, default=100, help="examples of a unit (default: %(default)s)")
    parser.add_argument("--new", type=int, default=1000, help="commits after the snapshot (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--long", action="store_true", help="1,000,000 units too")
    parser.add_argument("--save", action="store_true", help="keep the result in benchmarks/results/")
    parser.add_argument("--measure", nargs=2, metavar=("WAY", "STORE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure)))
        return
    names = ("units", "examples", "keys s", "keys MiB", "bytes/key", "index s", "index MiB", "limit s", "limit MiB")
    print("".join(f"{name:>12}" for name in names))
    curve = []
    for units in [int(text) for text in options.units.split(",") if text] + [1_000_000] * options.long:
        with tempfile.TemporaryDirectory(prefix="logitbank-") as folder:
            curve.append(measure_store(Path(folder), units, options))
        point = curve[-1]
        print(
            f"{units:>12,}{point['examples']:>12,}"
            f"{point['keys_s']['median']:>12.2f}{point['keys_mib']:>12.0f}{point['bytes_a_key']:>12.1f}"
            + "".join(f"{point[f'{way}_s']['median']:>12.2f}{point[f'{way}_mib']:>12.0f}" for way in WAYS[1:]),
            flush=True,
        )
    finish("scale.resume", {"by_units": curve, "new": options.new}, options.save, "scale_resume")


def measure_store(folder: Path, units: int, options: argparse.Namespace) -> dict[str, Any]:
    """A store of so many units, read in every way, in turns."""
    storage = LocalStorage(folder / "store")
    spec = StoreSpec("benchmark", "none", "none", "none", 2048, 2048, "float32", TargetSpec("topk", 8), None)
    create_store(storage, spec)
    real, _ = write_unit(storage, spec, as_records(simulated_rows(64 * options.examples, 8, 2048)))
    new = min(options.new, units // 2)
    add_commits(storage, real, units - new - 1, options.examples, seed=0)
    started = time.process_time()
    take_snapshot(storage)
    snapshot_s = time.process_time() - started
    add_commits(storage, real, new, options.examples, seed=1)
    np.concatenate(current_keys(storage, spec.fingerprint)).tofile(folder / "store" / "keys")
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(options.repeats):
        for way, results in found.items():
            command = [sys.executable, "-m", "benchmarks.scale.resume", "--measure", way, str(folder / "store")]
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
            results.append(json.loads(done.stdout.splitlines()[-1]))
    examples = int(found["keys"][0]["examples"])
    highest = {f"{way}_mib": max(each["mib"] for each in results) for way, results in found.items()}
    return {
        "units": units,
        "examples": examples,
        "snapshot_s": snapshot_s,
        **{f"{way}_s": spread([each["seconds"] for each in results]) for way, results in found.items()},
        **highest,
        "bytes_a_key": highest["keys_mib"] * (1 << 20) / examples,
    }


def measure(way: str, store: str) -> dict[str, float]:
    """Read in one way, in this process."""
    storage = LocalStorage(store)
    fingerprint = read_spec(storage).fingerprint
    before, started = _peak_mib(), time.perf_counter()
    kept: Any
    if way == "keys":
        kept = current_keys(storage, fingerprint)
        examples = sum(map(len, kept))
    elif way == "index":
        kept = current_index(storage, fingerprint)
        examples = len(kept)
    else:
        kept = np.fromfile(Path(store) / "keys", "V16")
        examples = len(kept)
    return {"seconds": time.perf_counter() - started, "mib": _peak_mib() - before, "examples": examples}


def _peak_mib() -> float:
    """Highest resident memory of this process so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    main()
