"""What does a store cost as it grows? Writing and reading it by the tokens, and opening it by the units.

Of tokens: seconds of CPU to write simulated rows (k = 64, vocabulary 32,768) in units of 16,384 tokens and to read them
all at random, and bytes; each should double when the tokens do. Of units: seconds of CPU to take the first snapshot of
that many commits; milliseconds of CPU a unit of a second snapshot after --new more, at most 1; megabytes of Python's
memory that this takes; and seconds on the clock to open the store, at most 2. These commits and their index are real,
their parts are not there, because opening a store reads none. Median of --repeats; every file is in the page cache.
--long: a million units too.

    python -m benchmarks.store.scale --tokens 65536,131072,262144,524288 --units 1000,10000,100000
"""

import argparse
import tempfile
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.harness import finish, spread
from benchmarks.common.rows import simulated_rows
from benchmarks.store.records import as_records
from cache.json_documents import encode_document
from cache.rows.spec import StoreSpec, TargetSpec
from cache.storage.local import LocalStorage
from cache.store.commits import Commit, CommittedExample, commit_path, create_store, part_path, unit_name
from cache.store.logit_store import LogitStore
from cache.store.segments.columns import hex_rows
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", default="65536,131072,262144,524288", help="default: %(default)s")
    parser.add_argument("--units", default="1000,10000,100000", help="sizes of the stores (default: %(default)s)")
    parser.add_argument("--examples", type=int, default=16, help="examples of a unit (default: %(default)s)")
    parser.add_argument("--new", type=int, default=100, help="units of the second snapshot (default: %(default)s)")
    parser.add_argument("--long", action="store_true", help="1,000,000 units too, which takes half an hour")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--save", action="store_true", help="keep the result in benchmarks/results/")
    options = parser.parse_args()
    print(f"{'tokens':>9}{'write s':>10}{'read s':>10}{'bytes':>14}{'bytes/token':>13}")
    growth = []
    for tokens in [int(text) for text in options.tokens.split(",") if text]:
        with tempfile.TemporaryDirectory(prefix="logitbank-") as folder:
            growth.append(measure_tokens(Path(folder), tokens, options.repeats))
        one = growth[-1]
        print(
            f"{tokens:>9,}{one['write_s']:>10.2f}{one['read_s']['median']:>10.3f}{one['bytes']:>14,}"
            f"{one['bytes'] / tokens:>13.1f}",
            flush=True,
        )
    names = ("units", "examples", "first s", "new ms", "new MB", "open s", "index MB", "window us")
    print("\n" + "".join(f"{name:>11}" for name in names))
    curve = []
    for units in [int(text) for text in options.units.split(",") if text] + [1_000_000] * options.long:
        with tempfile.TemporaryDirectory(prefix="logitbank-") as folder:
            curve.append(measure(Path(folder), units, options))
        point = curve[-1]
        print(
            f"{units:>11,}{point['examples']:>11,}{point['snapshot_s']:>11.2f}{point['new_unit_ms']:>11.3f}"
            f"{point['new_bytes'] / 1e6:>11.1f}{point['open_s']['median']:>11.3f}{point['index_bytes'] / 1e6:>11.1f}"
            f"{point['window_us']:>11.0f}",
            flush=True,
        )
    results = {"by_tokens": growth, "by_units": curve, "open_s": curve[-1]["open_s"]["median"]}
    finish("store.scale", results, options.save, "store_scale")


def measure_tokens(folder: Path, tokens: int, repeats: int) -> dict[str, Any]:
    """Write and read simulated rows."""
    rows = simulated_rows(tokens, 64, 32768)
    records = as_records(rows)
    storage = LocalStorage(folder)
    spec = StoreSpec("benchmark", "none", "none", "none", 32768, 32768, "float32", TargetSpec("topk", 64), None)
    create_store(storage, spec)
    started, begin, size = time.process_time(), 0, 0
    for end, record in enumerate(records, start=1):
        size += len(record.targets)
        if size >= 16384 or end == len(records):
            write_unit(storage, spec, records[begin:end])
            begin, size = end, 0
    write_s = time.process_time() - started
    take_snapshot(storage)
    store = LogitStore.open(str(folder))
    read = []
    for seed in range(repeats):
        order = np.random.default_rng(seed).permutation(len(store)).tolist()
        started = time.process_time()
        for i in order:
            store.window(i)
        read.append(time.process_time() - started)
    return {"tokens": tokens, "write_s": write_s, "read_s": spread(read), "bytes": store.info().part_bytes}


def measure(folder: Path, units: int, options: argparse.Namespace) -> dict[str, Any]:
    """One real unit, and `units` - 1 commits like it; then `options.new` more."""
    storage = LocalStorage(folder)
    spec = StoreSpec("benchmark", "none", "none", "none", 2048, 2048, "float32", TargetSpec("topk", 8), None)
    create_store(storage, spec)
    real, _ = write_unit(storage, spec, as_records(simulated_rows(64 * options.examples, 8, 2048)))
    add_commits(storage, real, units - 1, options.examples, seed=0)
    started = time.process_time()
    take_snapshot(storage)
    snapshot_s = time.process_time() - started
    add_commits(storage, real, options.new, options.examples, seed=1)
    started = time.process_time()
    take_snapshot(storage)
    new_s = time.process_time() - started
    add_commits(storage, real, options.new, options.examples, seed=2)
    tracemalloc.start()
    snapshot = take_snapshot(storage)
    new_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    opened = []
    for _ in range(options.repeats):
        started = time.perf_counter()
        store = LogitStore.open(str(folder), expect=spec)
        opened.append(time.perf_counter() - started)
    there = np.flatnonzero(store.index.unit_of == hex_rows(store.index.unit).index(real.unit))
    store.window(int(there[0]))  # opens the part
    started = time.perf_counter()
    for i in there:
        store.window(int(i))
    window_us = (time.perf_counter() - started) / len(there) * 1e6
    return {
        "units": units,
        "examples": len(store),
        "snapshot_s": snapshot_s,
        "new_units": options.new,
        "new_unit_ms": new_s / options.new * 1e3,
        "new_bytes": new_bytes,
        "open_s": spread(opened),
        "segments": len(snapshot.segments),
        "index_bytes": sum(info.bytes for info in snapshot.segments),
        "window_us": window_us,
    }


def add_commits(storage: LocalStorage, real: Commit, count: int, examples: int, seed: int) -> None:
    """Write commits of units of random keys."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        keys = [rng.bytes(16).hex() for _ in range(examples)]
        unit = unit_name(keys)
        commit = replace(
            real,
            unit=unit,
            part=replace(real.part, path=part_path(unit, rng.bytes(16).hex())),
            examples=tuple(CommittedExample(key, "scored", 64, 64) for key in keys),
        )
        storage.path(commit_path(unit)).write_bytes(encode_document(commit.to_document()))


if __name__ == "__main__":
    main()
