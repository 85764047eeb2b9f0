"""One process captures and takes snapshots, one reads and goes on to each new snapshot, one collects garbage.

What is read is what an undisturbed capture stores, and no example changes its number.
"""

import hashlib
import multiprocessing
from pathlib import Path

import numpy as np

from cache.rows.record import Record
from cache.storage.local import LocalStorage
from cache.store.commits import committed_units, create_store
from cache.store.logit_store import LogitStore
from cache.store.snapshot_reading import latest_snapshot
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from cache.store.upkeep.garbage_collection import collect_garbage
from cache.store.verify import verify_store
from tests.cache.rows.rows import TARGETS, assert_same_record, store_spec
from tests.cache.store.damage import units_of

SPEC = store_spec(TARGETS["topk"])
UNITS, EXAMPLES = 24, 6
DONE = "done"


def work() -> list[list[Record]]:
    return units_of("topk", UNITS, records=EXAMPLES, seed=4)


def capture(folder: str) -> None:
    storage = LocalStorage(folder)
    for number, unit in enumerate(work(), start=1):
        write_unit(storage, SPEC, unit)
        if number % 3 == 0:
            take_snapshot(storage)
    take_snapshot(storage)
    Path(f"{folder}.{DONE}").touch()


def collect(folder: str) -> None:
    """With the default grace, as a daily job does; a snapshot by hand comes in between."""
    storage = LocalStorage(folder)
    while not Path(f"{folder}.{DONE}").exists():
        assert collect_garbage(storage).removed == []
        take_snapshot(storage)


def train(folder: str, result: str) -> None:
    """Read every example in passes over random orders, each at the newest snapshot then."""
    while not latest_snapshot(LocalStorage(folder)):
        pass
    store = LogitStore.open(folder)
    rng = np.random.default_rng(0)
    keys: list[str] = []
    contents: dict[str, str] = {}
    is_last = False
    while True:
        now = [store.key(i) for i in range(len(store))]
        assert now[: len(keys)] == keys, "an example changed its number"
        keys = now
        for i in rng.permutation(len(store)).tolist():
            assert contents.setdefault(keys[i], content(store[i])) == content(store[i])
        if is_last:
            break
        is_last = Path(f"{folder}.{DONE}").exists()
        store = store.refresh()
    Path(result).write_text("\n".join(f"{key} {contents[key]}" for key in sorted(contents)))


def content(record: Record) -> str:
    state = hashlib.sha256(repr(record.tokenized.example).encode())
    for array in (record.tokenized.tokens, record.targets.ids, record.targets.logprobs, record.targets.log_tail):
        state.update(array.tobytes())
    return state.hexdigest()


def test_reading_beside_a_capture_gives_what_an_undisturbed_one_stores(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    create_store(LocalStorage(folder), SPEC)
    context = multiprocessing.get_context("spawn")
    jobs = [
        context.Process(target=target, args=(str(folder), *more))
        for target, more in ((capture, ()), (collect, ()), (train, (str(tmp_path / "read"),)))
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(300)
    assert [job.exitcode for job in jobs] == [0, 0, 0]
    undisturbed = LocalStorage(tmp_path / "undisturbed")
    create_store(undisturbed, SPEC)
    capture(str(undisturbed))
    expected = {record.key: record for record in LogitStore.open(undisturbed.root)}
    store = LogitStore.open(folder)
    assert len(store) == len(expected) == UNITS * EXAMPLES
    assert committed_units(LocalStorage(folder)) == committed_units(undisturbed)
    for record in store:
        assert_same_record(record, expected[record.key])
    lines = (tmp_path / "read").read_text().splitlines()
    assert lines == [f"{key} {content(expected[key])}" for key in sorted(expected)]
    assert latest_snapshot(LocalStorage(folder)) >= UNITS // 3
    report = verify_store(str(folder))
    assert not report.problems and not report.uncommitted
