"""A store behaves like a sequence: negative indices, slices, sequences of indices, iteration, and a useful repr."""

import re
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch

from cache.errors import StoreError
from cache.rows.record import Record
from cache.store.logit_store import LogitStore
from tests.cache.rows.rows import assert_same_record, assert_same_window
from tests.cache.store.mixed_stores import open_mixed


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LogitStore:
    return open_mixed(tmp_path_factory.mktemp("indexing") / "store", "topk")[0]


def keys(records: list[Record]) -> list[str]:
    return [record.key for record in records]


@pytest.mark.parametrize("part", [slice(0, 3), slice(None), slice(-2, None), slice(None, None, -2), slice(5, 2)])
def test_a_slice_gives_a_list_of_records(store: LogitStore, part: slice) -> None:
    assert keys(store[part]) == [store.key(i) for i in range(len(store))[part]]


@pytest.mark.parametrize(
    "indices",
    [
        [1, 2],
        (2, 0, 2),
        [-1, 1],
        [],
        range(1, 4),
        np.array([3, -2]),
        np.array([4], np.uint8),
        np.array([]),
        torch.tensor([2, -1]),
        pandas.Series([3, 1]),
    ],
    ids=repr,
)
def test_indices_give_records_in_the_requested_order(store: LogitStore, indices: list[int]) -> None:
    assert keys(store[indices]) == [store.key(int(i)) for i in indices]


def test_one_index_gives_one_record(store: LogitStore) -> None:
    for i in (2, np.int64(2), np.array(2), 2 - len(store)):
        assert_same_record(store[i], store[[2]][0])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "index, message",
    [
        ("2", "must be an integer, a slice or a sequence of integers, not str"),
        (1.0, "not float"),
        (None, "not NoneType"),
        (True, "turn a mask into indices"),
        ([0, "1"], "not str"),
        ([True, False], "turn a mask into indices"),
        (np.array([True, False]), r"must be integers \[n\], not bool \[2\]; turn a mask into indices"),
        (np.array([1.0]), "not float64"),
        (np.array([[1, 2]]), r"not int64 \[1, 2\]"),
        (torch.tensor([True, False]), "turn a mask into indices"),
        (torch.tensor([[1, 2]]), "not list"),
    ],
)
def test_what_is_no_index_is_refused(store: LogitStore, index: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        store[index]  # type: ignore[call-overload]


def test_an_index_out_of_range_is_refused(store: LogitStore) -> None:
    n = len(store)
    for index in (n, -n - 1, [0, n], np.array([-n - 1])):
        with pytest.raises(IndexError, match=rf"no example -?\d+; it has {n}"):
            store[index]  # type: ignore[call-overload]
    for i in (n, -n - 1):
        with pytest.raises(IndexError, match=f"no example {i}; it has {n}"):
            store.windows([(0, 0, None), (i, 0, None)])
        with pytest.raises(StoreError, match=f"no example {i}; it has {n}"):
            store.window(i)
        with pytest.raises(StoreError, match=f"no example {i}; it has {n}"):
            store.read([0, i])


def test_windows_take_negative_indices_too(store: LogitStore) -> None:
    last = len(store) - 1
    assert_same_window(store.window(-1, 1, 3), store.window(last, 1, 3))
    for window, i in zip(store.read([-1, 0, -2]), (last, 0, last - 1), strict=True):
        assert_same_window(window, store.window(i))


def test_windows_take_negative_tokens_as_slices_do(store: LogitStore) -> None:
    i = int(np.argmax(store.tokens))
    n = int(store.tokens[i])
    whole = store.window(i)
    for start, stop in ((-5, None), (-5, -2), (0, -1), (3, -3), (-n, n), (-1, -1)):
        first, last, _ = slice(start, stop).indices(n)
        assert_same_window(store.window(i, start, stop), whole.part(first, last))
    for start, stop in ((-n - 1, None), (0, n + 1), (-2, -5), (0, -n - 1)):
        given = f"{start}:{'' if stop is None else stop}"
        with pytest.raises(StoreError, match=f"tokens {given} of example {i}, which has {n}"):
            store.window(i, start, stop)


@pytest.mark.parametrize("read", ["read", "texts", "batches"])
@pytest.mark.parametrize("index", [[True], [1.5], ["1"], np.array([0.5]), np.array([True, False]), [None]], ids=repr)
def test_what_is_no_index_is_refused_everywhere(store: LogitStore, read: str, index: object) -> None:
    """Would catch a mask that is read as the examples 0 and 1."""
    with pytest.raises(TypeError, match=r"must be (an integer|integers)"):
        getattr(store, read)(index)


def test_iteration_gives_every_record(store: LogitStore) -> None:
    assert keys(list(store)) == [store.key(i) for i in range(len(store))]


def test_a_repr_says_what_the_store_is(store: LogitStore) -> None:
    text = repr(store)
    assert re.fullmatch(
        rf"LogitStore\('{re.escape(str(store.storage))}', snapshot 1, {len(store)} examples, "
        r"topk, k = \d+, .*, \d+\.\d bytes/token\)",
        text,
    ), text
    unpinned = LogitStore.open(str(store.storage), unpinned=True)
    assert "not pinned" in repr(unpinned)


def test_a_closed_store_has_no_open_files_and_opens_them_again(tmp_path: Path) -> None:
    """Would catch a program that opens many stores and runs out of files."""

    def open_files() -> int:
        return sum(
            str(tmp_path) in str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()
        )

    open_mixed(tmp_path / "store", "topk")[0].close()
    with LogitStore.open(tmp_path / "store") as store:
        key = store[3].key
        assert open_files() > 0
    assert open_files() == 0
    assert store[3].key == key


@pytest.mark.parametrize("examples", [3, "12", None], ids=repr)
def test_what_is_no_sequence_of_examples_is_named(store: LogitStore, examples: object) -> None:
    with pytest.raises(TypeError, match=f"examples = {examples!r}: give a list"):
        store.read(examples)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=f"examples = {examples!r}: give a list"):
        store.texts(examples)  # type: ignore[arg-type]


def test_a_search_by_in_names_what_to_call(store: LogitStore) -> None:
    for item in (store[0], store.key(0)):
        with pytest.raises(TypeError, match=r"find\(\)"):
            item in store  # noqa: B015
