"""What is committed now, by keys alone: the same as of the whole index, and from less of it."""

from pathlib import Path

import numpy as np
import pytest

from cache.storage.local import LocalStorage
from cache.store.segments import building
from cache.store.segments.keys import Array, keys_of_hex
from cache.store.snapshot_reading import are_committed, current_index, current_keys, snapshot_numbers
from cache.store.snapshots import take_snapshot
from cache.store.withdrawal.forgotten import mark_forgotten
from tests.cache.store.segments.commits_without_parts import SPEC, add_commits, begin_store, keys_of
from tests.cache.store.segments.test_building import CountingStorage


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CountingStorage:
    """Several segments, and commits that no snapshot lists."""
    monkeypatch.setattr(building, "MAX_EXAMPLES", 2000)
    storage = CountingStorage(tmp_path / "store")
    like = begin_store(storage)
    for turn in range(3):
        add_commits(storage, like, 60, 30, turn)
        take_snapshot(storage)
    add_commits(storage, like, 7, 30, 9)
    return storage


def require_as_the_index_says(storage: LocalStorage) -> Array:
    """Both functions give what the whole index has. Returns the keys."""
    index = current_index(storage, SPEC.fingerprint)
    expected = np.sort(index.key.view("V16").ravel())
    arrays = current_keys(storage, SPEC.fingerprint)
    for keys in arrays:
        assert np.array_equal(keys, np.sort(keys)), "look-ups need sorted keys"
    assert np.array_equal(np.sort(np.concatenate(arrays)), expected)
    others = keys_of_hex(["0" * 32, "f" * 32, *(np.random.default_rng(99).bytes(16).hex() for _ in range(50))])
    asked = np.concatenate([expected[::7], others])
    assert are_committed(storage, SPEC.fingerprint, asked).tolist() == [True] * len(expected[::7]) + [False] * 52
    return expected


def test_keys_are_those_of_the_index(storage: CountingStorage) -> None:
    assert len(require_as_the_index_says(storage)) > 5000
    empty = LocalStorage(storage.root.parent / "empty")
    like = begin_store(empty)
    assert set(keys_of(empty, like.unit)) == {key.tobytes().hex() for key in require_as_the_index_says(empty)}


def test_a_lost_segment_is_made_again_and_forgotten_examples_are_left_out(storage: CountingStorage) -> None:
    before = require_as_the_index_says(storage)
    path = next((storage.root / "index").glob("*.zarr.zip"))
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    assert np.array_equal(require_as_the_index_says(storage), before)
    path.unlink()
    assert np.array_equal(require_as_the_index_says(storage), before)
    mark_forgotten(storage, [before[0].tobytes().hex()])
    assert np.array_equal(require_as_the_index_says(storage), before[1:])


def test_only_the_keys_are_read(storage: CountingStorage) -> None:
    """16 bytes an example of 35, and for a look-up a chunk of them."""
    assert snapshot_numbers(storage) == [1, 2, 3]
    measured = {}
    for name, call in (
        ("index", lambda: current_index(storage, SPEC.fingerprint)),
        ("keys", lambda: current_keys(storage, SPEC.fingerprint)),
        ("look-up", lambda: are_committed(storage, SPEC.fingerprint, keys_of_hex(["0" * 32]))),
    ):
        storage.range_bytes = 0
        call()
        measured[name] = storage.range_bytes
    assert measured["look-up"] < measured["keys"] < 0.75 * measured["index"]
