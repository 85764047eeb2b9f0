"""A training job reads one snapshot of its store from its first start to its last."""

from pathlib import Path

from cache.json_documents import write_json
from cache.rows.spec import StoreSpec
from cache.storage.local import LocalStorage
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from cluster.training.snapshot_pinning import pin_snapshots
from student.training.planning.stores import OpenStores
from tests.records import MakeRecords
from tests.student.training.ranks import settings_of


def test_a_job_is_pinned_to_the_snapshot_that_it_started_with(
    storage: LocalStorage, spec: StoreSpec, make_records: MakeRecords, tmp_path: Path
) -> None:
    write_unit(storage, spec, make_records(3))
    take_snapshot(storage)
    job = settings_of(tmp_path / "run", Path(str(storage)))
    pinned = pin_snapshots(job, OpenStores())
    assert pinned.data.snapshot == 1
    write_json(job.output / "job.json", pinned.model_dump(mode="json"))
    write_json(job.output / "checkpoints" / "progress.json", {"step": 1})
    write_unit(storage, spec, make_records(3, seed=1))
    assert take_snapshot(storage).number == 2
    assert pin_snapshots(job, OpenStores()).data.snapshot == 1
    new = job.model_copy(update={"output": tmp_path / "new"})
    assert pin_snapshots(new, OpenStores()).data.snapshot == 2
