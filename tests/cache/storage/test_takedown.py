"""An example is removed from a store in a bucket."""

import numpy as np

from cache.storage.open import open_storage
from cache.store.commits import create_store
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from cache.store.upkeep.expiring import expire_snapshots
from cache.store.upkeep.forgetting import forget_examples
from cache.store.upkeep.garbage_collection import collect_garbage
from cache.store.verify import verify_store
from tests.cache.rows.rows import TARGETS, random_record, store_spec
from tests.cache.storage.s3_faults import FaultyServer


def test_a_takedown_in_a_bucket_leaves_nothing(server: FaultyServer, bucket_uri: str) -> None:
    """Many commits are read at a time there."""
    spec = store_spec(TARGETS["topk"])
    storage = open_storage(bucket_uri)
    create_store(storage, spec)
    units = [[random_record(np.random.default_rng(u), f"u{u}", 2, 6, spec.targets)] for u in range(20)]
    for unit in units:
        write_unit(storage, spec, unit)
    take_snapshot(storage)
    key = units[7][0].key
    assert forget_examples(bucket_uri, ["u7"], "a request").keys == (key,)
    take_snapshot(storage)
    assert expire_snapshots(storage, keep=1) == [1]
    assert collect_garbage(storage).waiting == []
    assert len(LogitStore.open(bucket_uri)) == 19
    secrets = (key.encode(), bytes.fromhex(key), b'"u7"')
    names = [n for f in ("parts", "commits", "index", "snapshots", "forgotten", "withdrawn") for n in storage.walk(f)]
    left = [name for name in names if any(secret in storage.read(name) for secret in secrets)]
    assert left == [f"forgotten/{key}.json"]
    report = verify_store(bucket_uri)
    assert not report.problems and not report.remaining and report.examples == 19
