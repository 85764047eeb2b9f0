"""A store opens only with the spec it was made with; what is not a store is refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from cache.errors import InputError, SpecMismatchError, StoreError
from cache.rows.spec import StoreSpec, TargetSpec
from cache.storage.local import LocalStorage
from cache.store.commits import create_store
from cache.store.logit_store import LogitStore
from cache.store.unit_writer import write_unit
from tests.cache.store.damage import make_store


def test_another_spec_is_refused_field_by_field(storage: LocalStorage, spec: StoreSpec) -> None:
    other = replace(spec, targets=TargetSpec("topk", 8))
    with pytest.raises(SpecMismatchError, match=r"; targets\.k: was 16, now 8\. Give"):
        create_store(storage, other)
    with pytest.raises(SpecMismatchError, match=r"; targets\.k: was 16, now 8\. Give"):
        LogitStore.open(str(storage), expect=other)
    with pytest.raises(InputError, match="expect = 'abc': must be a StoreSpec"):
        LogitStore.open(str(storage), expect="abc")  # type: ignore[arg-type]
    create_store(storage, replace(spec, teacher="the same weights at another path"))


def test_a_folder_that_is_not_a_store_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(StoreError, match="not a store"):
            LogitStore.open(str(folder))


def test_a_store_without_snapshot_is_refused(storage: LocalStorage) -> None:
    with pytest.raises(StoreError, match="no snapshot yet"):
        LogitStore.open(str(storage))


def test_a_unit_without_records_is_refused(storage: LocalStorage, spec: StoreSpec) -> None:
    with pytest.raises(InputError, match="at least one record"):
        write_unit(storage, spec, [])


@pytest.mark.parametrize("systematic", [False, True])
def test_a_way_to_draw_is_part_of_the_content(spec: StoreSpec, systematic: bool) -> None:
    """Would catch stores of independent draws that are taken for systematic ones, or no longer for what they were."""
    drawn = replace(spec, targets=TargetSpec("sampled", draws=20, systematic=systematic))
    assert StoreSpec.from_document(drawn.to_document(), "spec.json") == drawn
    assert drawn.to_document()["spec"]["targets"]["systematic"] == systematic
    other = replace(drawn, targets=replace(drawn.targets, systematic=not systematic))
    with pytest.raises(SpecMismatchError, match=f"targets.systematic: was {systematic}, now {not systematic}"):
        drawn.require_same(other, "store")


@pytest.mark.parametrize("number", ["1", 1.0, True])
def test_a_snapshot_that_is_no_number_is_refused(tmp_path: Path, number: object) -> None:
    storage = make_store(tmp_path / "store")
    with pytest.raises(InputError, match=rf"snapshot = {number!r}: must be the number of a snapshot"):
        LogitStore.open(storage.root, snapshot=number)  # type: ignore[arg-type]
