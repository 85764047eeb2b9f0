"""One open store read from threads, from forked and from spawned processes."""

import multiprocessing
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cache.rows.record import Window
from cache.store import logit_store as reader
from cache.store.logit_store import LogitStore
from cache.store.segments.keys import Array, Keys
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from tests.cache.rows.rows import TARGETS, assert_same_window, random_record, store_spec
from tests.cache.store.mixed_stores import new_store, open_mixed


def read_windows(store: LogitStore, wanted: list[tuple[int, int, int | None]]) -> list[Window]:
    return store.windows(wanted)


def test_a_pickled_store_reads_in_a_spawned_process(tmp_path: Path) -> None:
    store, _ = open_mixed(tmp_path / "store", "threshold")
    store.window(0)  # with a part and a codebook held
    copy = pickle.loads(pickle.dumps(store))
    assert copy.snapshot == 1 and repr(copy.info()) == repr(store.info())
    wanted = [(i, 0, None) for i in range(len(store))]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for found in (copy.windows(wanted), pool.apply(read_windows, (store, wanted))):
            for window, expected in zip(found, store.windows(wanted), strict=True):
                assert_same_window(window, expected)


def test_an_open_store_reads_on_after_a_fork(tmp_path: Path) -> None:
    store, _ = open_mixed(tmp_path / "store", "topk")
    wanted = [(i, 0, None) for i in range(len(store))]
    expected = store.windows(wanted)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for found in pool.starmap(read_windows, [(store, wanted)] * 2):
            for window, other in zip(found, expected, strict=True):
                assert_same_window(window, other)


def test_threads_share_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With so little memory for opened parts that each thread closes those of the others."""
    monkeypatch.setattr(reader, "MAX_PART_BYTES", 1)
    spec = store_spec(TARGETS["threshold"])
    storage = new_store(tmp_path / "store", spec)
    rng = np.random.default_rng(5)
    for unit in range(6):
        write_unit(storage, spec, [random_record(rng, f"{unit} {i}", 2, 40, spec.targets) for i in range(3)])
    take_snapshot(storage)
    store = LogitStore.open(str(storage))
    expected = [LogitStore.open(str(storage)).window(i) for i in range(len(store))]
    batches = [rng.integers(0, len(store), 8).tolist() for _ in range(60)]
    with ThreadPoolExecutor(8) as pool:
        for batch, windows in zip(batches, pool.map(store.read, batches), strict=True):
            for i, window in zip(batch, windows, strict=True):
                assert_same_window(window, expected[i])
    # What a race counted twice would never be given back.
    assert [store._part_bytes] == [part.nbytes for part in store._parts.values()]


def test_a_fork_while_a_thread_computes_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child has no such thread: it must not wait for it."""
    open_mixed(tmp_path / "store", "topk")
    store, compute = LogitStore.open(tmp_path / "store"), vars(Keys)["in_order"].fget
    parent, computing, ready = os.getpid(), threading.Event(), threading.Event()

    def slowly(keys: Keys) -> Array:
        if os.getpid() == parent:
            computing.set()
            ready.wait(60)
        return np.asarray(compute(keys))

    monkeypatch.setattr(Keys, "in_order", property(slowly))
    thread = threading.Thread(target=lambda: store.keys)
    thread.start()
    assert computing.wait(60)
    child = multiprocessing.get_context("fork").Process(target=lambda: store.keys)
    child.start()
    child.join(20)
    hangs = child.is_alive()
    child.kill()
    ready.set()
    thread.join()
    assert not hangs and child.exitcode == 0
