"""Where else a forgotten example may be: in units that the index does not read, and in units that cannot be read."""

from pathlib import Path

from cache.storage.local import LocalStorage
from cache.store.commits import committed_units, create_store, read_commit
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from cache.store.upkeep.expiring import expire_snapshots
from cache.store.upkeep.forgetting import forget_examples
from cache.store.upkeep.garbage_collection import collect_garbage
from cache.store.verify import verify_store
from tests.cache.rows.rows import TARGETS, store_spec
from tests.cache.store.upkeep.test_forgetting import files_with, make_records, make_store, secrets_of, take_down

SPEC = store_spec(TARGETS["topk"])


def test_every_unit_that_has_the_example_is_written_again(tmp_path: Path) -> None:
    """The index lists an example once; the other units that have it are only known from their commits."""
    unit, other, third, *_ = make_records(TARGETS["topk"])
    for snapshots in (True, False):
        storage = LocalStorage(tmp_path / str(snapshots))
        create_store(storage, SPEC)
        for records in (unit, [unit[0], *other], third, [third[0], unit[0]]):
            write_unit(storage, SPEC, records)
            if snapshots:
                take_snapshot(storage)
        take_snapshot(storage)
        take_down(storage, [unit[0].key])
        assert files_with(storage, secrets_of([unit[0]])) == {f"forgotten/{unit[0].key}.json"}
        assert {record.key for record in LogitStore.open(storage.root)} == {r.key for r in unit[1:] + other + third}
        report = verify_store(str(storage))
        assert not report.problems and not report.remaining and report.doubles == 1


def test_a_unit_that_could_not_be_read_is_written_again_as_soon_as_it_can(tmp_path: Path) -> None:
    storage = make_store(tmp_path / "store")
    record = make_records(TARGETS["topk"])[0][3]
    units = committed_units(storage)
    (unit,) = [u for u in units if record.key in {e.key for e in read_commit(storage, u)[0].examples}]
    path = storage.path(read_commit(storage, unit)[0].part.path)
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    forget_examples(str(storage), [record.key])
    take_snapshot(storage)
    take_snapshot(storage)
    assert verify_store(str(storage)).remaining
    path.write_bytes(content)
    take_snapshot(storage)
    expire_snapshots(storage, keep=1)
    assert not collect_garbage(storage).waiting
    assert files_with(storage, secrets_of([record])) == {f"forgotten/{record.key}.json"}
    assert len(LogitStore.open(storage.root)) == 19 and not verify_store(str(storage)).problems
