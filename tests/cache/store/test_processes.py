"""An open store in other processes: after a fork, from a pickle, in another folder, after its parent closed it."""

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from cache.rows.record import Window
from cache.storage.local import LocalStorage
from cache.store.logit_store import LogitStore
from tests.cache.rows.rows import assert_same_window
from tests.cache.store.damage import make_store

# A child that hangs ends by the signal of its alarm.
PATIENCE = 30


def everything(store: LogitStore) -> list[Window]:
    return store.read(range(len(store)))


def exit_code_of_child(work: Callable[[], Any]) -> int:
    """Exit code of a fork of this process that does `work`; 0 if it succeeds."""
    child = os.fork()
    if child == 0:
        signal.alarm(PATIENCE)
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def store(tmp_path: Path) -> LogitStore:
    return LogitStore.open(make_store(tmp_path / "store", units=4).root)


def check(store: LogitStore, expected: list[Window]) -> None:
    for window, other in zip(everything(store), expected, strict=True):
        assert_same_window(window, other)


@pytest.mark.parametrize("owner", ["store", "files"])
@pytest.mark.parametrize("has_read", [True, False], ids=["parts open", "nothing open"])
def test_a_child_reads_though_a_thread_of_its_parent_had_a_lock(
    owner: str, has_read: bool, store: LogitStore, tmp_path: Path
) -> None:
    expected = everything(LogitStore.open(tmp_path / "store"))
    assert isinstance(store.storage, LocalStorage)
    if has_read:
        everything(store)
    lock = store._lock if owner == "store" else store.storage._lock
    locked, done = threading.Event(), threading.Event()

    def keep_locked() -> None:
        with lock:
            locked.set()
            done.wait(2 * PATIENCE)

    thread = threading.Thread(target=keep_locked)
    thread.start()
    assert locked.wait(PATIENCE)
    try:
        assert exit_code_of_child(lambda: check(store, expected)) == 0
    finally:
        done.set()
        thread.join()
    check(store, expected)


@pytest.mark.slow
def test_children_of_a_fork_beside_reading_threads_read(store: LogitStore) -> None:
    expected = everything(store)
    is_over = threading.Event()

    def read_all_the_time() -> None:
        while not is_over.is_set():
            everything(store)
            store.close()

    threads = [threading.Thread(target=read_all_the_time) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        assert [exit_code_of_child(lambda: check(store, expected)) for _ in range(6)] == [0] * 6
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def read_when_asked(store: LogitStore, connection: Connection) -> None:
    connection.send(everything(store))
    connection.recv()
    connection.send(everything(store))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_reads_on_after_its_parent_closed_the_store(method: Any, store: LogitStore) -> None:
    expected = everything(store)
    context = multiprocessing.get_context(method)
    here, there = context.Pipe()
    process = context.Process(target=read_when_asked, args=(store, there))
    process.start()
    try:
        for _ in range(2):
            assert here.poll(2 * PATIENCE), "the child hangs"
            for window, other in zip(here.recv(), expected, strict=True):
                assert_same_window(window, other)
            store.close()
            here.send("once more")
    finally:
        process.join(PATIENCE)
        process.kill()
    check(store, expected)


def test_a_store_opened_by_a_relative_path_is_read_from_any_folder(
    store: LogitStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = everything(store)
    monkeypatch.chdir(tmp_path)
    opened = LogitStore.open("store")
    data = pickle.dumps(opened)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    check(opened, expected)
    check(pickle.loads(data), expected)
