"""Iteration and batches give what single reads give, in the requested order, and decode a chunk once."""

import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.errors import ExampleIndexError, InputError
from cache.storage.base import Range
from cache.storage.local import LocalStorage
from cache.store.logit_store import LogitStore
from tests.cache.rows.rows import assert_same_record, assert_same_window
from tests.cache.store.reading.chat_stores import chat_records, chat_store


@pytest.fixture(scope="module", params=["topk", "threshold", "sampled", "texts"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LogitStore]:
    with chat_store(tmp_path_factory.mktemp("batches") / "store", request.param) as opened:
        yield opened


def orders(n: int) -> list[tuple[Any, list[int]]]:
    """Requests in every form that a list of n items or numpy takes, and the numbers of the examples that they mean."""
    shuffled = np.random.default_rng(0).permutation(n)
    numbers = list(range(n))
    return [
        (None, numbers),
        (slice(None, None, -3), numbers[::-3]),
        (shuffled, shuffled.tolist()),
        (shuffled[:20].tolist() * 2, shuffled[:20].tolist() * 2),
        ((-1, 0, -n, 5, 5), [n - 1, 0, 0, 5, 5]),
        ([], []),
        (range(9), numbers[:9]),
    ]


def test_iteration_gives_every_record_as_it_was_written(store: LogitStore) -> None:
    written = {record.key: record for record in chat_records(store.spec.targets)}
    found = list(store)
    assert len(found) == len(written)
    for i, record in enumerate(found):
        assert record.key == store.key(i)
        assert record.tokenized.example == written[record.key].tokenized.example
        assert record.tokenized.origin == written[record.key].tokenized.origin
        assert np.array_equal(record.tokenized.tokens, written[record.key].tokenized.tokens)
        assert np.array_equal(record.targets.counts, written[record.key].targets.counts)


def test_batches_in_any_order_equal_single_reads(store: LogitStore) -> None:
    singles = [store[i] for i in range(len(store))]
    for examples, numbers in orders(len(store)):
        for tokens in (300, 10**9):
            batches = list(store.batches(examples, tokens))
            records = [record for batch in batches for record in batch]
            for record, i in zip(records, numbers, strict=True):
                assert_same_record(record, singles[i])
            for batch in batches:
                assert len(batch) == 1 or 0 < sum(len(record.tokenized.tokens) for record in batch) <= tokens
        windows = [window for batch in store.batches(examples, 300, texts=False) for window in batch]
        for window, i in zip(windows, numbers, strict=True):
            assert_same_window(window, singles[i].window)
    assert [len(batch) for batch in store.batches(range(9), 1)] == [1] * 9


def test_lists_slices_and_texts_equal_single_reads(store: LogitStore) -> None:
    for examples, numbers in orders(len(store))[1:]:
        found = zip(store[examples], store.texts(examples), store.read(examples), numbers, strict=True)
        for record, example, window, i in found:
            assert record.key == store.key(i)
            assert_same_window(window, record.window)
            assert example == record.tokenized.example


def test_wrong_requests_are_refused_at_the_call(store: LogitStore) -> None:
    n = len(store)
    for examples in ([0, n], [-n - 1], np.array([n])):
        with pytest.raises(ExampleIndexError, match=f"no example (-{n + 1}|{n}); it has {n}"):
            store.batches(examples)
        with pytest.raises(ExampleIndexError, match=f"no example (-{n + 1}|{n}); it has {n}"):
            store.texts(examples)
    with pytest.raises(InputError, match="tokens = 0: a batch needs at least 1"):
        store.batches(tokens=0)


def test_a_chunk_of_texts_is_decoded_once_a_batch(store: LogitStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch the texts' chunk being decoded for every example of it, which took most of the time."""
    order = np.random.default_rng(1).permutation(len(store))
    store.texts([store.find(store.key(0))])
    ranges: list[Range] = []
    original = LocalStorage.read_ranges

    def read_ranges(self: LocalStorage, requested: Sequence[Range]) -> list[bytes]:
        ranges.extend(requested)
        return original(self, requested)

    monkeypatch.setattr(LocalStorage, "read_ranges", read_ranges)
    assert len(store.texts(order)) == len(store)
    assert len(ranges) <= 3 * len(store.index.unit)  # the parts themselves are opened too
    ranges.clear()
    (batch,) = store.batches(order, 10**9)
    with_texts = len(ranges)
    ranges.clear()
    (windows,) = store.batches(order, 10**9, texts=False)
    assert len(batch) == len(windows) == len(store)
    assert with_texts - len(ranges) <= 2 * len(store.index.unit)


def test_memory_of_iteration_is_that_of_a_batch(tmp_path: Path) -> None:
    """Would catch an iteration that reads the store, or a whole unit, before the first record."""
    store = chat_store(tmp_path / "store", "topk")
    for _ in store:
        pass
    tracemalloc.start()
    peaks = []
    for tokens in (500, 10**9):
        tracemalloc.reset_peak()
        for batch in store.batches(tokens=tokens):
            del batch
        peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    assert peaks[0] < peaks[1] / 3
