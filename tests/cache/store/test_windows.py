"""Windows and batches equal slices of whole records, and read little."""

import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cache.errors import StoreError
from cache.parts.part_reader import PartReader
from cache.rows.record import Window
from cache.rows.sparse_targets import concatenate
from cache.rows.spec import TargetMode
from cache.storage.base import Range
from cache.storage.local import LocalStorage
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from tests.cache.rows.rows import MODES, TARGETS, assert_same_window, random_record, random_rows, store_spec
from tests.cache.store.mixed_stores import new_store, open_mixed


class CountingStorage(LocalStorage):
    """Counts the bytes and requests that reading takes."""

    read_bytes = 0
    requests = 0

    def read_ranges(self, ranges: Sequence[Range]) -> list[bytes]:
        found = super().read_ranges(ranges)
        self.read_bytes += sum(map(len, found))
        self.requests += 1
        return found


@pytest.fixture(scope="module")
def long_store(tmp_path_factory: pytest.TempPathFactory) -> LogitStore:
    """One example of 20,000 tokens between two short ones, in one part."""
    rng = np.random.default_rng(2)
    spec = store_spec(TARGETS["topk"])
    storage = new_store(tmp_path_factory.mktemp("long") / "store", spec)
    long = random_record(rng, "long", 0, 20_000, spec.targets)
    some = random_rows(rng, 500, spec.targets)
    long = replace(long, targets=concatenate([some] * 40))
    short = [random_record(rng, f"short {i}", 3, 40, spec.targets) for i in range(2)]
    write_unit(storage, spec, [short[0], long, short[1]])
    take_snapshot(storage)
    return LogitStore.open(str(storage))


def test_windows_of_a_long_example_are_slices_of_it(long_store: LogitStore) -> None:
    whole = long_store[1].window
    assert len(whole) == 20_000
    rng = np.random.default_rng(3)
    edges = [0, 1, 255, 256, 511, 512, 513, 8191, 8192, 8193, 19_999, 20_000]
    pairs = [(a, b) for a in edges for b in edges if a <= b]
    pairs += [tuple(sorted(pair)) for pair in rng.integers(0, 20_001, (100, 2)).tolist()]
    for start, stop in pairs:
        assert_same_window(long_store.window(1, start, stop), whole.part(start, stop))
    assert_same_window(long_store.window(1, 19_990), whole.part(19_990, 20_000))
    for start, stop in ((-1, 5), (5, 4), (0, 20_001), (20_001, 20_001)):
        with pytest.raises(StoreError, match=r"tokens \S+ of example 1, which has 20000"):
            long_store.window(1, start, stop)


def test_a_window_reads_little_of_a_large_part(long_store: LogitStore) -> None:
    place = long_store.index.part_info(0)
    size = place.bytes
    storage = CountingStorage(str(long_store.storage))
    store = LogitStore(storage, long_store.spec, long_store.index, 1, frozenset())
    store.window(1, 0, 1)
    opened = storage.read_bytes
    assert opened < size / 5, "opening a part takes too much of it"
    for start in (1000, 9000, 19_900):
        before, requests = storage.read_bytes, storage.requests
        store.window(1, start, start + 64)
        assert storage.read_bytes - before < size / 7
        assert storage.requests == requests + 1, "a window should need one round of reading"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_batches_in_any_order_with_repeats_equal_single_reads(long_store: LogitStore, data: st.DataObject) -> None:
    def pick() -> tuple[int, int, int | None]:
        i = data.draw(st.integers(0, 2))
        length = int(long_store.tokens[i])
        start = data.draw(st.integers(0, length))
        return i, start, data.draw(st.one_of(st.none(), st.integers(start, min(length, start + 3000))))

    wanted = [pick() for _ in range(data.draw(st.integers(0, 6)))]
    wanted += [wanted[j] for j in data.draw(st.lists(st.integers(0, 5), max_size=3)) if j < len(wanted)]
    found = long_store.windows(wanted)
    assert len(found) == len(wanted)
    for window, (i, start, stop) in zip(found, wanted, strict=True):
        assert_same_window(window, long_store.window(i, start, stop))


@pytest.mark.parametrize("mode", MODES)
def test_batches_over_units_and_empty_documents_equal_single_reads(mode: TargetMode, tmp_path: Path) -> None:
    store, _ = open_mixed(tmp_path / "store", mode)
    singles = [record.window for record in store]
    rng = np.random.default_rng(4)
    for _ in range(20):
        chosen = rng.integers(0, len(store), rng.integers(0, 12)).tolist()
        for i, window in zip(chosen, store.read(chosen), strict=True):
            assert_same_window(window, singles[i])


def test_a_pickle_contains_no_decoded_parts(long_store: LogitStore) -> None:
    """Loaders send the store to every worker."""
    assert len(pickle.dumps(long_store)) < 10_000


def test_examples_with_few_others_between_them_are_decoded_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of one rank of several. Would catch a chunk that is decoded again for each of its examples."""
    rng, spec = np.random.default_rng(0), store_spec(TARGETS["topk"])
    storage = new_store(tmp_path / "store", spec)
    write_unit(storage, spec, [random_record(rng, str(i), 4, 16, spec.targets) for i in range(240)])
    take_snapshot(storage)
    store = LogitStore.open(str(storage))
    expected = store.read(range(240))
    decoded: list[tuple[int, int]] = []
    original = PartReader.window

    def window(self: PartReader, start: int, stop: int) -> Window:
        decoded.append((start, stop))
        return original(self, start, stop)

    monkeypatch.setattr(PartReader, "window", window)
    for step, runs in ((1, 1), (4, 1), (25, 1), (40, 6)):  # 480 tokens between two of every 25th
        decoded.clear()
        examples = list(range(0, 240, step))
        for i, found in zip(examples, store.read(examples), strict=True):
            assert_same_window(found, expected[i])
        assert len(decoded) == runs
