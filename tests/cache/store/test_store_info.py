"""Counts, bytes and errors that a store and its commits state."""

import zipfile

import numpy as np
import pytest

from cache.rows.spec import StoreSpec
from cache.storage.local import LocalStorage
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from tests.records import MakeRecords


def test_info_counts_what_is_there(storage: LocalStorage, spec: StoreSpec, make_records: MakeRecords) -> None:
    write_unit(storage, spec, make_records(3))
    write_unit(storage, spec, make_records(4, seed=1))
    take_snapshot(storage)
    store = LogitStore.open(str(storage))
    info = store.info()
    on_disk = sum(path.stat().st_size for path in (storage.root / "parts").rglob("*") if path.is_file())
    shards = 0
    for path in (storage.root / "parts").glob("*/*.zarr.zip"):
        with zipfile.ZipFile(path) as archive:
            shards += sum(entry.file_size for entry in archive.infolist() if "/c/" in entry.filename)
    assert (info.units, info.examples, info.tokens, info.rows) == (2, 7, 70, 42)
    assert info.entries == 42 * 16 and info.origins == {"scored": 7}
    assert info.part_bytes == on_disk and info.bytes_per_token == on_disk / 42
    assert info.bytes == sum(path.stat().st_size for path in storage.root.rglob("*") if path.is_file()) > on_disk
    assert sum(store.bytes_by_array().values()) == shards
    assert 0 < info.kl < 1e-3 and 0 < info.max_abs_error < 0.2
    assert 0.5 < info.retained_mass < 1


def test_the_error_that_a_commit_states_is_the_true_one(
    storage: LocalStorage, spec: StoreSpec, make_records: MakeRecords
) -> None:
    records = make_records(5)
    commit, _ = write_unit(storage, spec, records)
    take_snapshot(storage)
    greatest = 0.0
    for stored, record in zip(LogitStore.open(str(storage)), records, strict=True):
        for row in range(len(record.targets)):
            a, b = stored.targets.rows(row, row + 1), record.targets.rows(row, row + 1)
            order_a, order_b = np.argsort(a.ids), np.argsort(b.ids)
            greatest = max(greatest, float(np.abs(a.logprobs[order_a] - b.logprobs[order_b]).max(initial=0.0)))
    assert commit.max_abs_error == pytest.approx(greatest, abs=1e-7)
    held = [1 - np.exp(r.targets.log_tail[r.targets.counts > 0].astype(float)) for r in records]
    assert commit.retained_mass == pytest.approx(np.concatenate(held).mean())
