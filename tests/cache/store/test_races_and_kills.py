"""Writers that race or are killed at any moment leave a complete store."""

import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cache.rows.record import Record
from cache.rows.spec import StoreSpec
from cache.storage.local import LocalStorage
from cache.store.commits import create_store
from cache.store.logit_store import LogitStore
from cache.store.snapshot_reading import latest_snapshot, snapshot_numbers
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from cache.store.upkeep.garbage_collection import collect_garbage
from cache.store.verify import verify_store
from tests.cache.rows.rows import TARGETS, assert_same_record, assert_stored, store_spec
from tests.cache.store.damage import contents, units_of

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]


def test_drivers_that_take_snapshots_at_once_agree(full_store: LocalStorage) -> None:
    """Numbers have no gaps, each is one snapshot, and the last holds all."""
    spec = store_spec(TARGETS["topk"])
    work = units_of("topk", 12, records=1, seed=7)
    barrier = threading.Barrier(4)
    failures: list[BaseException] = []

    def drive(driver: int) -> None:
        storage = LocalStorage(full_store.root)
        try:
            barrier.wait()
            for unit in work[driver::2]:  # two pairs with the same work
                write_unit(storage, spec, unit)
                take_snapshot(storage)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=drive, args=(driver % 2,)) for driver in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    last = take_snapshot(full_store)
    assert snapshot_numbers(full_store) == list(range(1, last.number + 1))
    sizes = [len(LogitStore.open(str(full_store), snapshot=n)) for n in range(1, last.number + 1)]
    assert sizes == sorted(set(sizes)) and sizes[-1] == 18
    report = verify_store(str(full_store))
    assert not report.problems and not report.uncommitted


def write_units(root: str, spec: StoreSpec, units: list[list[Record]], start: int) -> None:
    for i in range(len(units)):
        write_unit(LocalStorage(root), spec, units[(start + i) % len(units)])
    take_snapshot(LocalStorage(root))


def test_drivers_in_processes_that_race_for_all_units_leave_one_of_each(tmp_path: Path) -> None:
    """From nothing: codebook, units and the first snapshot are all raced for, in different orders."""
    spec = store_spec(TARGETS["threshold"])
    units = units_of("threshold", 4)
    storage = LocalStorage(tmp_path / "store")
    create_store(storage, spec)
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_units, args=(str(storage), spec, units, i)) for i in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 8
    report = verify_store(str(storage))
    assert not report.problems and not report.uncommitted and report.examples == 12
    written = {record.key: record for unit in units for record in unit}
    for record in contents(storage):
        assert_stored(record.window, written.pop(record.key).window, spec.targets)
    assert not written


WRITER = """
import pickle, sys
from cache.store.snapshots import take_snapshot
from cache.storage.local import LocalStorage
from cache.store.unit_writer import write_unit
root, spec, units, profile = pickle.load(open(sys.argv[1], "rb"))
storage = LocalStorage(root)
print("go", flush=True)
for unit in units:
    print(*write_unit(storage, spec, unit, profile)[1:], flush=True)
    take_snapshot(storage)
"""


def test_kills_at_any_moment_lose_nothing(tmp_path: Path) -> None:
    """What a run to the end then has is, to the bit, what an undisturbed one has. LOGITBANK_KILLS: how many kills."""
    spec, units = store_spec(TARGETS["topk"]), units_of("topk", 40)
    disturbed, calm = (LocalStorage(tmp_path / name) for name in ("disturbed", "calm"))
    for storage in (disturbed, calm):
        create_store(storage, spec)
    for unit in units:
        write_unit(calm, spec, unit)
    take_snapshot(calm)
    (tmp_path / "work.pickle").write_bytes(pickle.dumps((str(disturbed), spec, units, "compact")))
    command = [sys.executable, "-c", WRITER, str(tmp_path / "work.pickle")]
    rng = random.Random(3)
    pinned = 0
    for _ in range(int(os.environ.get("LOGITBANK_KILLS", "4"))):
        writer = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
        assert writer.stdout and writer.stdout.readline() == b"go\n"
        writer.stdout.readline()  # at least one unit a run, so that all moments of a store's life come
        time.sleep(rng.uniform(0.0, 0.15))
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        # A kill may come between a snapshot and its copy, which the next snapshot writes.
        problems = [line for line in verify_store(str(disturbed)).problems if ".copy.json: missing" not in line]
        assert not problems
        number = latest_snapshot(disturbed)
        assert number >= pinned
        pinned = number
        if number:
            contents(disturbed)
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    assert not verify_store(str(disturbed)).problems
    found = contents(disturbed)
    expected = {record.key: record for record in contents(calm)}
    assert len(found) == len(expected) == 120
    for record in found:
        assert_same_record(record, expected[record.key])
    collect_garbage(disturbed, grace=0.0)
    report = verify_store(str(disturbed))
    assert not report.problems and not report.uncommitted and not disturbed.drafts()
