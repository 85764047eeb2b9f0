"""Snapshots list segments: they cost what was added, examples keep their numbers, and each key is there once."""

import math
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from cache.storage.base import Range
from cache.storage.local import LocalStorage
from cache.store.logit_store import LogitStore
from cache.store.segments import building
from cache.store.segments.file import KEY_CHUNK
from cache.store.snapshot_reading import current_index, open_snapshot
from cache.store.snapshots import take_snapshot
from tests.cache.store.segments.commits_without_parts import SPEC, add_commits, begin_store, commit_keys, keys_of


class CountingStorage(LocalStorage):
    """Counts the files that are read as a whole, and the bytes of ranges."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads: list[str] = []
        self.range_bytes = 0

    def read(self, name: str) -> bytes:
        self.reads.append(name)
        return super().read(name)

    def read_ranges(self, ranges: Sequence[Range]) -> list[bytes]:
        found = super().read_ranges(ranges)
        self.range_bytes += sum(map(len, found))
        return found


@pytest.fixture
def storage(tmp_path: Path) -> CountingStorage:
    return CountingStorage(tmp_path / "store")


def numbers(storage: LocalStorage, snapshot: int) -> list[str]:
    """The keys of the examples, in order."""
    return [key.tobytes().hex() for key in open_snapshot(storage, snapshot)[1].key]


def test_examples_keep_their_numbers_and_there_are_few_segments(storage: CountingStorage) -> None:
    like = begin_store(storage)
    rng = np.random.default_rng(0)
    before: list[str] = []
    for turn in range(40):
        names = add_commits(storage, like, int(rng.integers(1, 6)), int(rng.integers(0, 40)), turn)
        snapshot = take_snapshot(storage)
        now = numbers(storage, snapshot.number)
        assert now[: len(before)] == before
        assert sorted(now[len(before) :])[-1:] == sorted(key for name in names for key in keys_of(storage, name))[-1:]
        assert len(snapshot.segments) <= 2 + math.log2(1 + snapshot.units + snapshot.examples)
        before = now
    assert len(before) == len(set(before)) == snapshot.examples == len(current_index(storage, SPEC.fingerprint))
    index = open_snapshot(storage, snapshot.number)[1]
    assert int(index.counts[:, 0].sum()) == len(before) and len(index.unit) == snapshot.units
    for i in range(0, len(before), 17):  # every column belongs to its example
        unit = index.unit[index.unit_of[i]].tobytes().hex()
        assert keys_of(storage, unit)[index.position[i]] == before[i]
        if unit != like.unit:
            position = int(index.position[i])
            assert (index.tokens[i], index.rows[i]) == (position + 1, position)
            assert index.origin_names[index.origin[i]] == f"generated/{position % 3}"


def test_a_snapshot_reads_only_what_was_added(storage: CountingStorage) -> None:
    like = begin_store(storage)
    add_commits(storage, like, 300, 64, 1)
    take_snapshot(storage)
    whole = storage.size(take_snapshot(storage).segments[0].path) or 0
    (new,) = add_commits(storage, like, 1, 64, 2)
    storage.reads.clear()
    storage.range_bytes = 0
    tracemalloc.start()
    take_snapshot(storage)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [name for name in storage.reads if name.startswith("commits/")] == [f"commits/{new}.json"]
    assert whole > 700_000 and storage.range_bytes < whole, "the look-up of 64 keys reads keys and names, no more"
    assert peak < whole


def test_a_key_of_an_earlier_segment_is_left_out(storage: CountingStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the edges of the pieces in which keys are looked up, and with keys that differ in one half only."""
    monkeypatch.setattr(building, "MAX_EXAMPLES", 3 * KEY_CHUNK)
    like = begin_store(storage)
    rng = np.random.default_rng(0)
    alike = [f"{i:032x}" for i in range(KEY_CHUNK)] + [f"{i:016x}{'0' * 16}" for i in range(1, KEY_CHUNK)]
    ends = ["0" * 31 + "1", "f" * 32, "00" + "f" * 30, "f" * 30 + "00"]
    first = sorted({*alike, *ends, *(rng.bytes(16).hex() for _ in range(500))})
    commit_keys(storage, like, first, rng)
    take_snapshot(storage)
    fresh = [rng.bytes(16).hex() for _ in range(600)] + ["0" * 30 + "ff" * 1]
    fresh = [key for key in dict.fromkeys(fresh) if key not in first]
    again = [*first[::7], *first[:: KEY_CHUNK - 1], *ends]
    second = list(dict.fromkeys([*again, *fresh]))
    commit_keys(storage, like, second, rng)
    commit_keys(storage, like, [*fresh[:5], "e" * 32], rng)  # of two units of one snapshot the first by name counts
    snapshot = take_snapshot(storage)
    assert len(snapshot.segments) > 1
    now = numbers(storage, snapshot.number)
    real = [key for key in now if key not in {*first, *fresh, "e" * 32}]
    assert len(now) == len(set(now)) and len(real) == 3
    assert set(now) == {*first, *fresh, "e" * 32, *real}
    assert np.array_equal(current_index(storage, SPEC.fingerprint).key, open_snapshot(storage, snapshot.number)[1].key)
    doubles = LogitStore.open(storage.root).info().doubles
    assert doubles == len(first) + len(second) + 6 + 3 - len(now)


def test_a_full_segment_is_never_written_again(storage: CountingStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "MAX_EXAMPLES", 50)
    monkeypatch.setattr(building, "BATCH_UNITS", 3)
    like = begin_store(storage)
    full: set[str] = set()
    for turn in range(30):
        add_commits(storage, like, 3, 7, turn)
        segments = take_snapshot(storage).segments
        assert full <= {info.sha256 for info in segments} and max(info.examples for info in segments) <= 50
        full = {info.sha256 for info in segments[:-2]}
    assert len(full) >= 10
    assert len(LogitStore.open(storage.root)) == 30 * 21 + 3


def test_many_new_units_become_few_segments(storage: CountingStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that do not fit into memory together are read in several turns."""
    monkeypatch.setattr(building, "BATCH_UNITS", 16)
    like = begin_store(storage)
    add_commits(storage, like, 200, 3, 1)
    snapshot = take_snapshot(storage)
    assert len(snapshot.segments) == 1 and snapshot.units == 201 and snapshot.examples == 603
    assert len(LogitStore.open(storage.root, unpinned=True)) == 603


def test_unlisted_units_without_examples_stay_known(storage: CountingStorage) -> None:
    like = begin_store(storage)
    rng = np.random.default_rng(0)
    commit_keys(storage, like, [], rng)
    keys = [rng.bytes(16).hex() for _ in range(3)]
    commit_keys(storage, like, keys, rng)
    commit_keys(storage, like, keys[:2], rng)
    first = take_snapshot(storage)
    assert (first.units, first.examples) == (4, 6) and take_snapshot(storage) == first
