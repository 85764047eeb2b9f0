"""Stores that the first version of format 1 wrote are read as they were then, by this version and every later one."""

import tarfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from cache.rows.spec import FORMAT_VERSION
from cache.storage.local import LocalStorage
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from cache.store.verify import verify_store
from tests.cache.rows.rows import random_record, store_spec
from tests.cache.store.make_golden import CLEANED, GOLDEN, LENGTHS, STORES, VOCAB, contents

# Sums and logarithms of other machines may differ in the last bit.
CLOSE = {"logprobs", "log_tail"}


@pytest.fixture(params=STORES)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """Name and folder of a store."""
    with tarfile.open(GOLDEN / f"{request.param}.tar.xz") as archived:
        archived.extractall(tmp_path / "store", filter="data")
    return request.param, tmp_path / "store"


@pytest.fixture(scope="module")
def expected() -> dict[str, npt.NDArray[np.generic]]:
    with np.load(GOLDEN / "expected.npz") as archive:
        return dict(archive)


def test_a_golden_store_is_read_as_ever(golden: tuple[str, Path], expected: dict[str, npt.NDArray[np.generic]]) -> None:
    name, folder = golden
    store = LogitStore.open(str(folder), expect=store_spec(STORES[name][0], VOCAB))
    assert FORMAT_VERSION == 1 and store.snapshot is not None and store.snapshot >= 2
    assert len(store) == sum(len(lengths) for lengths in LENGTHS) - 1, "all but the forgotten one"
    assert max(store.tokens) > 2048
    found = contents(store)
    assert {f"{name}/{column}" for column in found} == {key for key in expected if key.startswith(f"{name}/")}
    for column, mine in found.items():
        wanted = expected[f"{name}/{column}"]
        assert mine.dtype == wanted.dtype and mine.shape == wanted.shape, column
        if column in CLOSE:
            assert np.allclose(mine, wanted, rtol=1e-6, atol=1e-6), column
        else:
            assert np.array_equal(mine, wanted, equal_nan=mine.dtype.kind == "f"), column
    example = store[0].tokenized.example
    assert example.id.startswith(name) and example.messages[0]["content"].endswith("ü")


def test_a_golden_store_is_sound(golden: tuple[str, Path]) -> None:
    """Seals, companions and the index are read as they were written, too."""
    name, folder = golden
    report = verify_store(str(folder))
    assert not report.problems and not report.uncommitted
    assert report.examples == len(LogitStore.open(str(folder)))
    assert bool(report.remaining) == (name != CLEANED), "the forgotten one is in its part until that is replaced"
    assert report.files == sum(1 for path in folder.rglob("*.zarr.zip") if path.parent.name != "index")
    assert LogitStore.open(str(folder)).info().quarantined == 1


def test_a_golden_store_may_grow(golden: tuple[str, Path], tmp_path: Path) -> None:
    """Capturing into a store of an older version must not spoil it."""
    name, folder = golden
    older = LogitStore.open(str(folder))
    spec = store_spec(STORES[name][0], VOCAB)
    write_unit(LocalStorage(folder), spec, [random_record(np.random.default_rng(9), "new", 2, 8, spec.targets, VOCAB)])
    take_snapshot(LocalStorage(folder))
    assert len(LogitStore.open(str(folder))) == len(older) + 1
    assert len(LogitStore.open(str(folder), snapshot=older.snapshot)) == len(older)
    assert not verify_store(str(folder)).problems
