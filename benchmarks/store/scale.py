"""What does a store cost as it grows? Writing and reading it by the tokens, and opening it by the units.

Of tokens: seconds of CPU to write simulated rows (k = 64, vocabulary 32,768) in units of 16,384 tokens and to read them
all at random, and bytes; each should double when the tokens do. Of units: seconds on the clock to take a snapshot of
that many commits, and to open it; the limit is a second. These commits and their index are real, their parts are not
there, because opening a store reads none. Median of --repeats; every file is in the page cache.

    python -m benchmarks.store.scale --tokens 65536,131072,262144,524288 --units 1000,10000,100000
"""

import argparse
import tempfile
import time
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
from cache.store.commits import CommittedExample, commit_path, create_store, part_path, unit_name
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", default="65536,131072,262144,524288", help="default: %(default)s")
    parser.add_argument("--units", default="1000,10000,100000", help="sizes of the stores (default: %(default)s)")
    parser.add_argument("--examples", type=int, default=16, help="examples of a unit (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--save", action="store_true", help="keep the result in benchmarks/results/")
    options = parser.parse_args()
    print(f"{'tokens':>9}{'write s':>10}{'read s':>10}{'bytes':>14}{'bytes/token':>13}")
    growth = []
    for tokens in [int(text) for text in options.tokens.split(",")]:
        with tempfile.TemporaryDirectory(prefix="logitbank-") as folder:
            growth.append(measure_tokens(Path(folder), tokens, options.repeats))
        one = growth[-1]
        print(
            f"{tokens:>9,}{one['write_s']:>10.2f}{one['read_s']['median']:>10.3f}{one['bytes']:>14,}"
            f"{one['bytes'] / tokens:>13.1f}",
            flush=True,
        )
    print(f"\n{'units':>9}{'examples':>12}{'snapshot s':>12}{'open s':>9}{'index MB':>10}{'window us':>11}")
    curve = []
    for units in [int(text) for text in options.units.split(",")]:
        with tempfile.TemporaryDirectory(prefix="logitbank-") as folder:
            curve.append(measure(Path(folder), units, options))
        point = curve[-1]
        print(
            f"{units:>9,}{point['examples']:>12,}{point['snapshot_s']:>12.2f}{point['open_s']['median']:>9.3f}"
            f"{point['index_bytes'] / 1e6:>10.1f}{point['window_us']:>11.0f}",
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
    """One real unit, and `units` - 1 commits like it."""
    storage = LocalStorage(folder)
    spec = StoreSpec("benchmark", "none", "none", "none", 2048, 2048, "float32", TargetSpec("topk", 8), None)
    create_store(storage, spec)
    rows = simulated_rows(64 * options.examples, 8, 2048)
    real, _ = write_unit(storage, spec, as_records(rows))
    rng = np.random.default_rng(0)
    for _ in range(units - 1):
        keys = [rng.bytes(16).hex() for _ in range(options.examples)]
        unit = unit_name(keys)
        commit = replace(
            real,
            unit=unit,
            part=replace(real.part, path=part_path(unit, rng.bytes(16).hex())),
            examples=tuple(CommittedExample(key, "scored", 64, 64) for key in keys),
        )
        storage.path(commit_path(unit)).write_bytes(encode_document(commit.to_document()))
    started = time.perf_counter()
    snapshot = take_snapshot(storage)
    snapshot_s = time.perf_counter() - started
    opened = []
    for _ in range(options.repeats):
        started = time.perf_counter()
        store = LogitStore.open(str(folder), expect=spec)
        opened.append(time.perf_counter() - started)
    there = np.flatnonzero(store.index.unit_of == [row.tobytes().hex() for row in store.index.unit].index(real.unit))
    store.window(int(there[0]))  # opens the part
    started = time.perf_counter()
    for i in there:
        store.window(int(i))
    window_us = (time.perf_counter() - started) / len(there) * 1e6
    return {
        "units": units,
        "examples": len(store),
        "snapshot_s": snapshot_s,
        "open_s": spread(opened),
        "index_bytes": storage.size(snapshot.index),
        "window_us": window_us,
    }


if __name__ == "__main__":
    main()
