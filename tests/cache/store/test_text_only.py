"""A store of a teacher that returned text alone: rows have no entries, and tokens may have log-probabilities."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cache.errors import InputError
from cache.parts.layout import PROFILES
from cache.rows.record import Record
from cache.rows.sparse_targets import empty_targets
from cache.rows.spec import StoreSpec, TargetSpec
from cache.storage.local import LocalStorage
from cache.store.commits import create_store
from cache.store.copying.transcode import transcode_store
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from cache.store.verify import verify_store


@pytest.fixture
def text_spec(spec: StoreSpec) -> StoreSpec:
    return replace(spec, targets=TargetSpec("topk", 0), service="a service: text only")


def without_rows(records: list[Record]) -> list[Record]:
    """Every other record has no log-probabilities of its own tokens either."""
    bare = []
    for i, record in enumerate(records):
        n = len(record.tokenized.tokens)
        own = np.full(n, np.nan, np.float32) if i % 2 else record.token_logprobs
        bare.append(replace(record, targets=empty_targets(n), token_logprobs=own))
    return bare


def test_text_alone_is_written_read_and_verified(
    tmp_path: Path, text_spec: StoreSpec, make_records: Callable[..., list[Record]]
) -> None:
    storage = LocalStorage(tmp_path / "store")
    create_store(storage, text_spec)
    records = [without_rows(make_records(4)), without_rows(make_records(3, seed=1))]
    for unit in records:
        commit, won = write_unit(storage, text_spec, unit)
        assert won and (commit.rows, commit.entries) == (0, 0)
    take_snapshot(storage)
    store = LogitStore.open(str(tmp_path / "store"))
    expected = {record.key: record for unit in records for record in unit}
    assert len(store) == 7
    for record in store:
        given = expected[record.key]
        assert np.array_equal(record.tokenized.tokens, given.tokenized.tokens)
        assert np.array_equal(record.tokenized.segments, given.tokenized.segments)
        assert np.array_equal(record.token_logprobs, given.token_logprobs, equal_nan=True)
        assert len(record.targets.ids) == 0 and (record.targets.log_tail == 0).all()
    report = verify_store(str(tmp_path / "store"))
    assert not report.problems and report.examples == 7
    info = store.info()
    assert (info.rows, info.entries) == (0, 0) and info.spec == text_spec
    shown = str(info)
    assert "topk, k = 0" in shown and "service        a service: text only" in shown and "nan" not in shown
    for profile in PROFILES:
        transcode_store(str(tmp_path / "store"), str(tmp_path / profile), profile)
        assert not verify_store(str(tmp_path / profile)).problems and len(LogitStore.open(str(tmp_path / profile))) == 7


def test_a_store_of_text_takes_no_rows(
    tmp_path: Path, text_spec: StoreSpec, make_records: Callable[..., list[Record]]
) -> None:
    storage = LocalStorage(tmp_path / "store")
    create_store(storage, text_spec)
    with pytest.raises(InputError, match="a row has 16 entries; topk targets of this store have at most 0"):
        write_unit(storage, text_spec, make_records(1))
