"""Stores that the first version of format 1 wrote are read as they were then, by this version and every later one."""

import io
import json
import lzma
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from cache.errors import NewerFormatError
from cache.json_documents import decode_document
from cache.parts.zarr_zip import group_of_file
from cache.rows.spec import FORMAT_VERSION
from cache.storage.local import LocalStorage
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from cache.store.verify import verify_store
from tests.cache.rows.rows import random_record
from tests.cache.store.later_version import ADDED, FEATURE
from tests.cache.store.make_golden import (
    CLEANED,
    GOLDEN,
    LATER,
    REQUIRED,
    STORES,
    VOCAB,
    contents,
    records_of,
    spec_of,
    unpack,
)

# Sums and logarithms of other machines may differ in the last bit.
CLOSE = {"logprobs", "log_tail"}


@pytest.fixture(params=[name for name in STORES if name != REQUIRED])
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """Name and folder of a store."""
    return request.param, unpack(request.param, tmp_path)


@pytest.fixture(scope="module")
def expected() -> dict[str, npt.NDArray[np.generic]]:
    with np.load(io.BytesIO(lzma.decompress((GOLDEN / "expected.npz.xz").read_bytes()))) as columns:
        return dict(columns)


def test_a_golden_store_is_read_as_ever(golden: tuple[str, Path], expected: dict[str, npt.NDArray[np.generic]]) -> None:
    name, folder = golden
    store = LogitStore.open(str(folder), expect=spec_of(name))
    assert FORMAT_VERSION == 1 and store.snapshot is not None and store.snapshot >= 2
    assert len(store) == sum(map(len, records_of(name, 0))) - 1, "all but the forgotten one"
    assert max(store.tokens) > 2048 or name in LATER
    assert len(store.index.keys) == len(STORES[name][1]), "segments"
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
    assert bool(report.remaining) == (name not in CLEANED), "the forgotten one is in its part until that is replaced"
    tokenizer = 1
    assert report.files == tokenizer + sum(1 for path in folder.rglob("*.zarr.zip") if path.parent.name != "index")
    assert LogitStore.open(str(folder)).info().quarantined == 1


def test_a_golden_store_may_grow(golden: tuple[str, Path], tmp_path: Path) -> None:
    """Capturing into a store of an older version must not spoil it."""
    name, folder = golden
    older = LogitStore.open(str(folder))
    spec = spec_of(name)
    write_unit(LocalStorage(folder), spec, [random_record(np.random.default_rng(9), "new", 2, 8, spec.targets, VOCAB)])
    take_snapshot(LocalStorage(folder))
    assert len(LogitStore.open(str(folder))) == len(older) + 1
    assert len(LogitStore.open(str(folder), snapshot=older.snapshot)) == len(older)
    assert not verify_store(str(folder)).problems


def test_what_a_later_version_added_is_there(tmp_path: Path) -> None:
    """In every document, group and table of the store that is read as before."""
    folder = unpack("later", tmp_path)
    documents = sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".units", ".expired"))
    folders = {str(path.parent.relative_to(folder)).partition("/")[0] for path in documents}
    assert folders == {
        ".",
        "codebooks",
        "commits",
        "forgotten",
        "index",
        "quarantine",
        "snapshots",
        "tokenizers",
        "withdrawn",
    }
    for path in documents:
        body = json.loads(path.read_bytes())
        assert path.parent.parent.name == "tokenizers" or "colour" in {**body, **body.get("attributes", {})}, path
    for path in folder.rglob("*.zarr.zip"):
        group = group_of_file(path.read_bytes(), path.name)
        assert group.attributes["colour"] == ADDED["colour"] and {"later/small", "later/large"} < set(group.shards)


def test_a_store_that_requires_a_feature_is_refused_by_its_name(tmp_path: Path) -> None:
    folder = unpack(REQUIRED, tmp_path)
    refusal = rf"requires the feature '{FEATURE}', which this version of logitbank does not know"
    with pytest.raises(NewerFormatError, match=rf"spec\.json: {refusal}"):
        LogitStore.open(folder)
    with pytest.raises(NewerFormatError, match=rf"spec\.json: {refusal}"):
        verify_store(str(folder))
    documents = [path for path in folder.rglob("*") if path.suffix in (".json", ".units") and path.parent != folder]
    for path in (folder / "spec.json", *(path for path in documents if "tokenizers" not in path.parts)):
        with pytest.raises(NewerFormatError, match=rf"x: {refusal}"):
            decode_document(path.read_bytes(), "x")
    for path in folder.rglob("*.zarr.zip"):
        group = group_of_file(path.read_bytes(), "x")
        with pytest.raises(NewerFormatError, match=rf"x: {refusal}"):
            group.require_kind(group.attributes["kind"])


def test_the_list_of_units_of_a_later_version_is_made_again_if_it_is_lost(tmp_path: Path) -> None:
    """Beside a segment of other bytes than this version writes."""
    folder = unpack("later", tmp_path)
    before = [record.key for record in LogitStore.open(folder)]
    for path in (folder / "index").glob("*.units"):
        path.unlink()
    assert len(verify_store(str(folder), repair=True).repaired) >= len(STORES["later"][1])
    assert not verify_store(str(folder)).problems
    assert [record.key for record in LogitStore.open(folder)] == before
