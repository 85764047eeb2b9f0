"""Examples of a window are read together, once, before their steps; few are in memory; errors reach every step."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cache.examples.example_order import Shuffle, examples_at
from cache.rows.record import Window
from cache.rows.sparse_targets import empty_targets
from cache.rows.spec import TargetSpec
from cache.storage.local import LocalStorage
from cache.store.commits import create_store
from cache.store.logit_store import LogitStore
from cache.store.reading.blocks import BLOCK_TOKENS
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from student.data.batches import Batches
from student.data.held_windows import HeldWindows
from student.data.prefetch import Prefetcher
from student.data.settings import DataSettings, StepSize
from student.data.sources import MixtureSource, StoreSource
from student.data.window_reader import WindowReader
from student.losses.settings import LossSettings
from tests.cache.rows.rows import random_record, store_spec

EXAMPLES, BATCH = 2000, 32


@pytest.fixture
def store(tmp_path: Path) -> LogitStore:
    """24 examples of ten tokens."""
    rng, storage, spec = np.random.default_rng(0), LocalStorage(tmp_path), store_spec(TargetSpec("topk", 8))
    create_store(storage, spec)
    write_unit(storage, spec, [random_record(rng, str(i), 4, 6, spec.targets) for i in range(24)])
    take_snapshot(storage)
    return LogitStore.open(tmp_path)


class Source:
    """Examples of a hundred tokens; counts what is read, and how much of it waits."""

    def __init__(self, shuffle: Shuffle, damaged: int = -1) -> None:
        self.tokens = self.sizes = np.full(EXAMPLES, 100)
        self.shuffle, self.damaged = shuffle, damaged
        self.requests: list[list[int]] = []
        self.held = HeldWindows(self)  # type: ignore[arg-type]
        self.most_held = 0

    def order(self, start: int, count: int, seed: int) -> np.ndarray:
        return examples_at(start, count, EXAMPLES, seed, self.shuffle)

    def window_end(self, position: int) -> int | None:
        return self.shuffle.window_end(position, EXAMPLES) if self.shuffle.block > 1 else None

    def read(self, examples: Sequence[int]) -> list[Window]:
        self.requests.append(list(examples))
        if self.damaged in examples:
            raise OSError("damaged")
        return [
            Window(np.full(10, i, np.uint32), np.zeros(10, np.uint8), empty_targets(10), np.zeros(10, np.float32))
            for i in examples
        ]

    def hold(self, examples: Sequence[int]) -> None:
        self.held.hold(examples)
        self.most_held = max(self.most_held, len(self.held))


def examples_of(source: Source, rank: int = 0, ranks: int = 1) -> Callable[[int], list[int]]:
    return lambda step: source.order(step * BATCH, BATCH, 0)[rank::ranks].tolist()


def run(source: Source, first: int, last: int, readers: int = 1, ranks: int = 1) -> None:
    """All steps, with the check that each has its own windows."""
    own = examples_of(source, 0, ranks)
    batches: Batches = source  # type: ignore[assignment]
    reader = WindowReader(batches, own, lambda step: step * BATCH, first, last)

    def make(step: int) -> list[int]:
        reader.prepare(step)
        return [int(window.tokens[0]) for window in source.held.take(own(step))]

    prefetcher = Prefetcher(make, first, last, 4, readers)
    try:
        for step, examples in enumerate(prefetcher, start=first):
            assert examples == own(step)
    finally:
        prefetcher.close()


@pytest.mark.parametrize("readers", [1, 4])
@pytest.mark.parametrize("ranks", [1, 4])
@pytest.mark.parametrize("first", [0, 7, 61])
def test_each_example_is_read_once_and_neighbours_together(readers: int, ranks: int, first: int) -> None:
    """Over an epoch's end, and from the middle of a window. Would catch a rank that reads the examples of others."""
    source = Source(Shuffle(20, 25))
    last = first + 80
    run(source, first, last, readers, ranks)
    wanted = [example for step in range(first, last) for example in examples_of(source, 0, ranks)(step)]
    read = [example for request in source.requests for example in request]
    assert sorted(read) == sorted(wanted)
    assert not len(source.held), "nothing is left in memory"
    assert all(request == sorted(request) for request in source.requests if len(request) > BATCH)
    window = 500 // ranks
    assert source.most_held <= window + readers * (BLOCK_TOKENS // 100 + 1 + BATCH), "about one window"
    assert len(source.requests) < 60, "of several steps each"


def test_a_reader_stops_at_the_last_step() -> None:
    """Would catch a run of one step that reads a whole window."""
    source = Source(Shuffle(20, 25))
    run(source, 3, 5)
    assert sum(map(len, source.requests)) == 2 * BATCH


def test_examples_that_are_no_neighbours_are_read_at_their_step() -> None:
    source = Source(Shuffle(1, 64))
    run(source, 0, 10)
    assert [sorted(request) for request in source.requests] == [sorted(examples_of(source)(step)) for step in range(10)]
    assert source.most_held == 0


def test_a_window_of_less_than_a_batch_is_read_at_its_step() -> None:
    source = Source(Shuffle(4, 2))
    run(source, 0, 10)
    assert len(source.requests) == 10 and source.most_held == 0


@pytest.mark.parametrize("readers", [1, 3])
def test_an_error_reaches_a_step_that_needs_the_example(readers: int) -> None:
    """And no other thread waits for ever."""
    source = Source(Shuffle(20, 25))
    source.damaged = examples_of(source)(30)[0]
    with pytest.raises(OSError, match="damaged"):
        run(source, 0, 40, readers)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("reader")]


def test_an_example_may_wait_twice() -> None:
    """As at the end of an epoch of few examples. Would catch a window that is dropped while it is needed again."""
    source = Source(Shuffle(20, 25))
    source.held.hold([3, 5, 3])
    assert len(source.held) == 3
    with ThreadPoolExecutor(2) as pool:
        taken = list(pool.map(source.held.take, [[3], [5, 3]]))
    assert [[int(window.tokens[0]) for window in windows] for windows in taken] == [[3], [5, 3]]
    assert len(source.requests) == 1
    assert [int(window.tokens[0]) for window in source.held.take([5, 3])] == [5, 3]
    assert source.requests[1:] == [[5, 3]], "what does not wait is read"


def test_held_windows_keep_no_longer_run_in_memory(store: LogitStore) -> None:
    """A view of one example would keep the whole run that it was decoded in."""
    source = StoreSource(store, DataSettings(store=str(store.storage)), LossSettings())
    held = HeldWindows(source)
    held.hold(list(range(24)))
    for window, direct in zip(held.take(list(range(24))), source.read(list(range(24))), strict=True):
        arrays = [window.tokens, window.segments, window.token_logprobs, window.targets.ids, window.targets.logprobs]
        assert all(array.base is None for array in arrays)
        assert np.array_equal(window.targets.ids, direct.targets.ids)
        assert np.array_equal(window.targets.logprobs, direct.targets.logprobs)


def test_the_settings_say_how_far_examples_are_shuffled(store: LogitStore) -> None:
    """Ten tokens an example. Would catch a setting that is not used, and sources of a mixture with a whole window."""

    def source(batch_size: int = 1, **keys: object) -> StoreSource:
        data = DataSettings.model_validate({"store": str(store.storage), **keys})
        return StoreSource(store, data, LossSettings(), StepSize(batch_size))

    assert source().shuffles == (Shuffle(102, 1024),)
    by_tokens = StoreSource(store, DataSettings(store=str(store.storage)), LossSettings(), StepSize(None, 10_240))
    assert by_tokens.shuffles == source(1024).shuffles, "10,240 tokens are 1,024 examples"
    assert source(1024).shuffles == (Shuffle(102, 4096),)
    assert source(1024, window_tokens=65_536).shuffles == (Shuffle(102, 64),)
    assert source(order="full").shuffles == (Shuffle(1, 1),)
    assert source(order="full").window_end(0) is None and source().window_end(0) == 24
    mixed = MixtureSource([source(), source()], [3.0, 1.0])
    assert mixed.shuffles == (Shuffle(102, 768), Shuffle(102, 256))
    assert mixed.window_end(0) == 32, "24 of 32 positions are those of the first store"
