"""Units, commits and snapshots: what each snapshot contains, and each example once."""

import pytest

from cache.errors import StoreError
from cache.rows.spec import StoreSpec
from cache.storage.local import LocalStorage
from cache.store.logit_store import LogitStore
from cache.store.quarantine.entries import quarantine_example
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from cache.store.verify import verify_store
from tests.cache.rows.rows import assert_same_record
from tests.records import MakeRecords


def test_an_unpinned_store_is_what_is_committed_now(
    storage: LocalStorage, spec: StoreSpec, make_records: MakeRecords
) -> None:
    assert len(LogitStore.open(str(storage), unpinned=True)) == 0
    write_unit(storage, spec, make_records(3))
    take_snapshot(storage)
    write_unit(storage, spec, make_records(2, seed=1))
    quarantine_example(storage, "0" * 32, "bad", "too long")
    now = LogitStore.open(str(storage), unpinned=True)
    assert len(now) == 5 and now.snapshot is None and now.info().quarantined == 1
    pinned = LogitStore.open(str(storage))
    assert len(pinned) == 3 and pinned.info().quarantined == 0
    for i in range(3):
        assert_same_record(pinned[i], now[now.find(pinned.key(i))])


def test_an_example_captured_twice_is_read_once(
    storage: LocalStorage, spec: StoreSpec, make_records: MakeRecords
) -> None:
    records = make_records(5)
    write_unit(storage, spec, records[:3])
    write_unit(storage, spec, records[1:])
    take_snapshot(storage)
    store = LogitStore.open(str(storage))
    assert sorted(record.key for record in store) == sorted(record.key for record in records)


def test_a_unit_written_twice_counts_once(storage: LocalStorage, spec: StoreSpec, make_records: MakeRecords) -> None:
    records = make_records(5)
    first, won = write_unit(storage, spec, records)
    second, won_again = write_unit(storage, spec, records)
    assert (won, won_again) == (True, False) and first.unit == second.unit
    report = verify_store(str(storage))
    assert not report.uncommitted and report.examples == 5


def test_a_snapshot_does_not_see_what_came_later(
    storage: LocalStorage, spec: StoreSpec, make_records: MakeRecords
) -> None:
    write_unit(storage, spec, make_records(3))
    assert take_snapshot(storage).number == 1
    assert take_snapshot(storage).number == 1
    write_unit(storage, spec, make_records(3, seed=1))
    assert take_snapshot(storage).number == 2
    quarantine_example(storage, "0" * 32, "bad", "too long")
    assert take_snapshot(storage).number == 3
    assert [len(LogitStore.open(str(storage), snapshot=n)) for n in (1, 2, 3)] == [3, 6, 6]
    for number in (0, 9):
        with pytest.raises(StoreError, match=f"no snapshot {number}"):
            LogitStore.open(str(storage), snapshot=number)
