"""Stores of records of all lengths, from empty documents on."""

from pathlib import Path

import numpy as np

from cache.parts.layout import Profile
from cache.rows.record import Record
from cache.rows.spec import StoreSpec, TargetMode
from cache.storage.local import LocalStorage
from cache.store.commits import create_store
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from tests.cache.rows.rows import TARGETS, random_record, store_spec


def new_store(folder: Path, spec: StoreSpec) -> LocalStorage:
    storage = LocalStorage(folder)
    create_store(storage, spec)
    return storage


def mixed_records(mode: TargetMode, seed: int = 0) -> list[Record]:
    """Empty documents, one token, no response, exactly one chunk of tokens, and more."""
    rng = np.random.default_rng(seed)
    lengths = [(0, 0), (1, 0), (0, 1), (1, 1), (3, 10), (6, 0), (112, 400), (0, 0), (2, 511), (7, 30)]
    records = [random_record(rng, f"{mode} {i}", *each, TARGETS[mode]) for i, each in enumerate(lengths)]
    # Empty documents all have one key: the same example, in two units.
    return [records[0] if not len(record.tokenized.tokens) else record for record in records]


def open_mixed(folder: Path, mode: TargetMode, profile: Profile = "compact") -> tuple[LogitStore, list[Record]]:
    """A store of two units, and its records in the store's order."""
    records = mixed_records(mode)
    spec = store_spec(TARGETS[mode])
    storage = new_store(folder, spec)
    write_unit(storage, spec, records[:6], profile)
    write_unit(storage, spec, records[6:], profile)
    take_snapshot(storage)
    store = LogitStore.open(str(storage), expect=spec)
    by_key = {record.key: record for record in records}
    return store, [by_key[store.key(i)] for i in range(len(store))]
