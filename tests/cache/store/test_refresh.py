"""A store that is open goes on to the newest snapshot: the examples that it had keep their numbers."""

from pathlib import Path

import numpy as np
import pytest

from cache.errors import StoreError
from cache.rows.spec import StoreSpec
from cache.storage.local import LocalStorage
from cache.store.commits import create_store
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from cache.store.upkeep.forgetting import forget_examples
from tests.cache.rows.rows import TARGETS, assert_same_record, store_spec
from tests.cache.store.damage import make_store, units_of


def test_numbers_stay_while_units_are_added(tmp_path: Path) -> None:
    storage = make_store(tmp_path / "store")
    spec = store_spec(TARGETS["topk"])
    store = first = LogitStore.open(storage.root)
    records = list(first)
    for turn in range(7):
        write_unit(storage, spec, units_of("topk", 1, records=2 + turn, seed=30 + turn)[0])
        assert len(store.refresh()) == len(records), "not before a snapshot"
        number = take_snapshot(storage).number
        newer = store.refresh()
        assert newer.snapshot == number and newer is not store and len(store) == len(records)
        assert len(newer) == len(records) + 2 + turn
        for record, other in zip(newer[: len(records)], records, strict=True):
            assert_same_record(record, other)
        store, records = newer, list(newer)
    assert len(first) == 6 and [r.key for r in first] == [r.key for r in records[:6]]
    assert np.array_equal(store.refresh().index.key, store.index.key)


def test_only_what_follows_a_forgotten_example_gets_another_number(tmp_path: Path) -> None:
    storage = make_store(tmp_path / "store")
    store = LogitStore.open(storage.root)
    keys = [store.key(i) for i in range(6)]
    forget_examples(str(storage), [keys[2]])
    take_snapshot(storage)
    newer = store.refresh()
    assert [newer.key(i) for i in range(5)] == [*keys[:2], *keys[3:]]
    assert [record.key for record in store] == keys, "the old snapshot is read as before"


def test_a_refresh_needs_a_snapshot(tmp_path: Path, spec: StoreSpec) -> None:
    storage = LocalStorage(tmp_path / "store")
    create_store(storage, spec)
    with pytest.raises(StoreError, match="no snapshot yet"):
        LogitStore.open(storage.root, unpinned=True).refresh()
