"""What is written is what is read; commits, snapshots and races."""

import multiprocessing
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from cache import layout
from cache.commits import committed_units, create_store, quarantine, take_snapshot
from cache.errors import InputError, SpecMismatchError, StoreError
from cache.reader import LogitStore
from cache.record import Record
from cache.spec import StoreSpec, TargetSpec
from cache.storage import LocalStorage
from cache.verify import verify
from cache.writer import write_unit

Make = Callable[..., list[Record]]


def test_records_come_back_as_they_went_in(storage: LocalStorage, spec: StoreSpec, make_records: Make) -> None:
    records = make_records(7)
    write_unit(storage, spec, records)
    take_snapshot(storage)
    store = LogitStore.open(str(storage), expect=spec)
    assert len(store) == 7
    for stored, record in zip(store, records, strict=True):
        assert stored.key == record.key
        assert stored.tokenized.example == record.tokenized.example
        assert np.array_equal(stored.tokenized.tokens, record.tokenized.tokens)
        assert np.array_equal(stored.tokenized.segments, record.tokenized.segments)
        assert np.array_equal(stored.targets.ids, record.targets.ids)
        assert np.array_equal(stored.targets.counts, record.targets.counts)
        assert np.abs(stored.targets.logprobs - record.targets.logprobs).max() <= spec.targets.step
        assert np.array_equal(stored.token_logprobs, record.token_logprobs, equal_nan=True)


def test_info_counts_what_is_there(storage: LocalStorage, spec: StoreSpec, make_records: Make) -> None:
    write_unit(storage, spec, make_records(3))
    write_unit(storage, spec, make_records(4, seed=1))
    take_snapshot(storage)
    info = LogitStore.open(str(storage)).info()
    on_disk = sum(path.stat().st_size for path in (storage.root / "parts").rglob("*") if path.is_file())
    assert (info.units, info.examples, info.tokens, info.rows) == (2, 7, 70, 42)
    assert info.bytes == on_disk
    assert info.bytes_per_token == on_disk / 42
    assert 0 < info.kl < 1e-3
    assert 0.5 < info.retained_mass < 1


def test_an_example_captured_twice_is_read_once(storage: LocalStorage, spec: StoreSpec, make_records: Make) -> None:
    records = make_records(5)
    write_unit(storage, spec, records[:3])
    write_unit(storage, spec, records[1:])
    take_snapshot(storage)
    store = LogitStore.open(str(storage))
    assert sorted(record.key for record in store) == sorted(record.key for record in records)


def test_a_snapshot_does_not_see_what_came_later(storage: LocalStorage, spec: StoreSpec, make_records: Make) -> None:
    write_unit(storage, spec, make_records(3))
    assert take_snapshot(storage).number == 1
    assert take_snapshot(storage).number == 1
    write_unit(storage, spec, make_records(3, seed=1))
    assert take_snapshot(storage).number == 2
    quarantine(storage, "0" * 32, "bad", "too long")
    assert take_snapshot(storage).number == 3
    assert [len(LogitStore.open(str(storage), snapshot=n)) for n in (1, 2, 3)] == [3, 6, 6]
    with pytest.raises(StoreError, match="no snapshot 9"):
        LogitStore.open(str(storage), snapshot=9)


def test_another_spec_is_refused_field_by_field(storage: LocalStorage, spec: StoreSpec) -> None:
    other = replace(spec, targets=TargetSpec("topk", 8, 0.05))
    with pytest.raises(SpecMismatchError, match=r"targets: stored .*k=16.*wanted .*k=8"):
        create_store(storage, other)
    create_store(storage, replace(spec, teacher="the same weights at another path"))


def test_what_is_not_a_store_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not a store"):
        LogitStore.open(str(tmp_path))


def test_a_store_without_snapshot_says_so(storage: LocalStorage) -> None:
    with pytest.raises(StoreError, match="no snapshot yet"):
        LogitStore.open(str(storage))


def test_a_refused_record_leaves_nothing(storage: LocalStorage, spec: StoreSpec, make_records: Make) -> None:
    good, bad = make_records(2)
    ids = bad.targets.ids.copy()
    ids[5] = spec.vocab_size
    with pytest.raises(InputError, match="example 1: id 500 is outside the vocabulary"):
        write_unit(storage, spec, [good, replace(bad, targets=replace(bad.targets, ids=ids))])
    assert not (storage.root / "parts").exists()


def test_plain_zarr_reads_a_part(storage: LocalStorage, spec: StoreSpec, make_records: Make) -> None:
    """The format is what the page says: no code of ours is needed to read it."""
    records = make_records(2)
    commit, _ = write_unit(storage, spec, records)
    with layout.numcodecs_allowed():
        group = zarr.open_group(storage.path(commit.part), mode="r")
        gaps = group["entries/gap"][:].astype(int)
    counts = group["tokens/entries"][:]
    row = int(np.flatnonzero(counts)[0])
    first = int(counts[:row].sum())
    logprobs = -0.05 * np.cumsum(gaps[first : first + 16])
    assert np.abs(logprobs - records[0].targets.logprobs[:16]).max() <= 0.025 + 1e-6


def write_all(root: str, spec: StoreSpec, units: list[list[Record]], start: int) -> None:
    storage = LocalStorage(root)
    for i in range(len(units)):
        write_unit(storage, spec, units[(start + i) % len(units)])


def test_racing_writers_commit_every_unit_once(storage: LocalStorage, spec: StoreSpec, make_records: Make) -> None:
    units = [make_records(2, seed=seed) for seed in range(6)]
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_all, args=(str(storage), spec, units, i % 2)) for i in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 4
    take_snapshot(storage)
    assert len(committed_units(storage)) == 6
    assert len(LogitStore.open(str(storage))) == 12
    report = verify(str(storage))
    assert not report.problems and not report.uncommitted
