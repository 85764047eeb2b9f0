"""Records of one key: none vanishes without a word, and totals count each example once."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cache.errors import InputError
from cache.rows.record import Record
from cache.storage.local import LocalStorage
from cache.store.commits import create_store
from cache.store.copying.transcode import transcode_store
from cache.store.fill import fill_store
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from cache.store.verify import verify_store
from tests.cache.rows.rows import TARGETS, store_spec
from tests.cache.store.damage import all_files, units_of

SPEC = store_spec(TARGETS["topk"])


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    storage = LocalStorage(tmp_path / "store")
    create_store(storage, SPEC)
    return storage


def changed(record: Record, **fields: Any) -> Record:
    """The same key and tokens with another text or label."""
    return replace(record, tokenized=replace(record.tokenized, example=replace(record.tokenized.example, **fields)))


CHANGES: list[dict[str, Any]] = [{"id": "other"}, {"label": "B"}, {"metadata": {"n": -1}}, {"response": "else"}]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_two_records_of_one_key_are_no_unit(change: dict[str, Any], storage: LocalStorage) -> None:
    first, second, _ = units_of("topk", 1)[0]
    before = all_files(storage)
    name = next(iter(change))
    with pytest.raises(InputError, match=f"examples 0 0 and .*: have one key, {first.key}, and differ in {name}; "):
        write_unit(storage, SPEC, [first, second, changed(first, **change)])
    with pytest.raises(InputError, match=r"have one key, .*, and the same texts; .*; give it once"):
        write_unit(storage, SPEC, [first, second, first])
    assert all_files(storage) == before


def test_an_import_keeps_what_differs_and_counts_what_does_not(tmp_path: Path) -> None:
    """In one unit, over units, and again in a rerun."""
    unit = units_of("topk", 1)[0]
    first = unit[0]
    others = [changed(first, **change) for change in CHANGES]
    others.append(replace(first, token_logprobs=first.token_logprobs - 1))
    records = [*unit, first, *others, unit[1], *others[:2]]
    uri = tmp_path / "store"
    for _ in range(2):
        assert fill_store(str(uri), SPEC, records, len(records), unit_examples=2) == 4
    store = LogitStore.open(uri)
    assert len(store) == len(unit) + len(others) and store.info().doubles == 0
    found = [record.tokenized.example for record in store]
    for record in (*unit, *others):
        assert record.tokenized.example in found
    assert len({store.key(i) for i in range(len(store))}) == len(store)
    assert sorted(store.key(store.find(record.key)) for record in unit) == sorted(record.key for record in unit)
    assert not verify_store(str(uri)).problems


def test_totals_count_an_example_of_two_units_once(storage: LocalStorage, tmp_path: Path) -> None:
    unit = units_of("topk", 1)[0]
    write_unit(storage, SPEC, unit)
    write_unit(storage, SPEC, unit[1:])
    take_snapshot(storage)
    store = LogitStore.open(storage.root)
    info = store.info()
    assert (info.examples, info.doubles) == (3, 2)
    assert info.rows == sum(record.target_rows for record in unit) == int(store.rows.sum())
    assert info.stored_rows == sum(record.target_rows for record in (*unit, *unit[1:]))
    assert info.entries / info.stored_rows == 20
    assert info.bytes_per_token == info.part_bytes / info.stored_rows
    assert "2 examples are in two units; the first counts" in str(info)
    report = verify_store(str(storage))
    assert not report.problems and report.doubles == 2 and report.examples == 5
    transcode_store(str(storage.root), str(tmp_path / "copy"), "fast")
    copy = LogitStore.open(tmp_path / "copy").info()
    assert (copy.examples, copy.doubles, copy.rows) == (3, 0, info.rows)


def test_verify_names_an_example_that_another_of_its_key_hides(storage: LocalStorage) -> None:
    unit = units_of("topk", 1)[0]
    write_unit(storage, SPEC, unit)
    write_unit(storage, SPEC, [changed(unit[1], label="B", id="hidden or not")])
    take_snapshot(storage)
    (problem,) = verify_store(str(storage)).problems
    assert f"of key {unit[1].key} is not read: another unit has example" in problem
    assert problem.endswith("they differ in id, label") and "hidden or not" in problem


def test_bytes_are_those_of_all_files(storage: LocalStorage) -> None:
    write_unit(storage, SPEC, units_of("topk", 1)[0])
    take_snapshot(storage)
    (storage.root / "parts" / "left-over").mkdir()
    shutil.copy(storage.root / "spec.json", storage.root / "parts" / "left-over" / "file")
    info = LogitStore.open(storage.root).info()
    assert info.bytes == sum(path.stat().st_size for path in all_files(storage)) > info.part_bytes > 0
