"""A store that a later version wrote: what it adds is ignored, unless it says that a reader must know it."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cache import json_documents
from cache.errors import NewerFormatError, StoreError
from cache.json_documents import canonical_json, decode_document, digest, encode_document
from cache.parts import part
from cache.rows.record import Record
from cache.storage.local import LocalStorage
from cache.store.commits import create_store, read_spec
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from cache.store.upkeep.forgetting import forget_examples
from cache.store.upkeep.garbage_collection import collect_garbage
from cache.store.verify import verify_store
from cluster.commands.main import main
from tests.cache.rows.rows import TARGETS, assert_same_record, store_spec
from tests.cache.store.damage import make_store, units_of
from tests.cache.store.later_version import ADDED, with_more_fields

DOCUMENTS = (
    "spec.json",
    "commits/*.json",
    "snapshots/*.json",
    "quarantine/*.json",
    "codebooks/*.json",
    "forgotten/*.json",
    "withdrawn/*.json",
    "index/*.units",
)


def change_document(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]], requires: list[str]) -> None:
    body = decode_document(path.read_bytes(), path.name)
    body = {name: value for name, value in body.items() if name not in ("format", "requires")}
    path.write_bytes(encode_document(change(body), requires))


def as_later(body: dict[str, Any]) -> dict[str, Any]:
    """With more fields, in the spec too, which then has another fingerprint."""
    more = with_more_fields(body)
    if "spec" in more:
        targets = {**more["spec"]["targets"], "beams": 4}
        more["spec"] = {**more["spec"], "targets": targets, "licence": "none"}
        content = {name: value for name, value in more["spec"].items() if name != "teacher"}
        more["fingerprint"] = digest({"format": 1, **content})
    return more


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    storage = make_store(tmp_path / "store")
    key = LogitStore.open(storage.root).key(0)
    forget_examples(str(storage), [key])
    take_snapshot(storage)
    return storage


def make_later(storage: LocalStorage) -> None:
    """Add to every document what a later version may add. A new spec has a new fingerprint everywhere."""
    old = read_spec(storage).fingerprint
    change_document(storage.path("spec.json"), as_later, [])
    new = read_spec(storage).fingerprint
    assert new != old
    for pattern in DOCUMENTS[1:]:
        for path in storage.root.glob(pattern):
            if "snapshots" not in path.parts:
                change_document(path, lambda body: with_more_fields({**body, **_renewed(body, new)}), [])
    for path in (storage.root / "snapshots").iterdir():
        path.unlink()
    shutil.rmtree(storage.root / "index")
    storage.path("zarr.json").unlink()
    assert verify_store(str(storage), repair=True).repaired == ["zarr.json"]
    take_snapshot(storage)
    for path in storage.root.glob("snapshots/*.json"):
        change_document(path, with_more_fields, [])


def _renewed(body: dict[str, Any], fingerprint: str) -> dict[str, Any]:
    return {"fingerprint": fingerprint} if "fingerprint" in body else {}


def test_more_fields_in_every_document_change_nothing(storage: LocalStorage) -> None:
    before = list(LogitStore.open(storage.root))
    make_later(storage)
    store = LogitStore.open(storage.root)
    assert sorted(record.key for record in store) == sorted(record.key for record in before)
    by_key = {record.key: record for record in before}
    for record in store:
        assert_same_record(record, by_key[record.key])
    assert store.info().quarantined == 1
    report = verify_store(str(storage))
    assert not report.problems
    # Its own writers go on, with the spec as it is stored.
    write_unit(storage, read_spec(storage), units_of("topk", 1, seed=9)[0])
    take_snapshot(storage)
    assert len(store.refresh()) == len(store) + 3 and not verify_store(str(storage)).problems
    collect_garbage(storage, grace=-1.0)
    assert not verify_store(str(storage)).problems
    with pytest.raises(StoreError, match=r"targets\.beams: was 4, now none; licence: was none, now none|licence"):
        LogitStore.open(storage.root, expect=store_spec(TARGETS["topk"]))


@pytest.mark.parametrize("pattern", DOCUMENTS)
def test_a_document_that_requires_a_feature_is_refused_by_name(
    pattern: str, storage: LocalStorage, capsys: pytest.CaptureFixture[str]
) -> None:
    """By everything that reads it: the line names the file and the feature, and nothing is written or removed."""
    for path in storage.root.glob(pattern):
        change_document(path, dict, ["bands", "colours"])
    before = {path: path.read_bytes() for path in storage.root.rglob("*") if path.is_file()}
    folder = pattern.partition("*")[0].rstrip("/")
    line = (
        rf"logitbank: \S*{re.escape(folder)}\S*: requires the feature 'bands', which this version of logitbank does not"
    )
    verbs = {
        "spec.json": (["inspect"], ["verify"], ["snapshot"], ["gc", "--dry-run"], ["expire", "--keep", "1"]),
        "commits/*.json": (["verify"], ["gc", "--dry-run"]),
        "snapshots/*.json": (["inspect"], ["verify"], ["snapshot"], ["gc", "--dry-run"]),
        "quarantine/*.json": (["verify"], ["quarantine"]),
        "codebooks/*.json": (["verify"], ["gc", "--dry-run"]),
        "forgotten/*.json": (["verify"],),
        "withdrawn/*.json": (["verify"], ["snapshot"], ["gc", "--dry-run"]),
        "index/*.units": (["verify"],),
    }[pattern]
    for verb, *options in verbs:
        assert main([verb, str(storage.root), *options]) == 2, verb
        captured = capsys.readouterr()
        assert re.search(line, captured.err), (verb, captured.err)
    assert {path: path.read_bytes() for path in storage.root.rglob("*") if path.is_file()} == before


def test_a_later_format_is_refused(storage: LocalStorage) -> None:
    path = storage.path("spec.json")
    body = {name: value for name, value in json.loads(path.read_bytes()).items() if name != "sha256"}
    whole = {**body, "format": 2}
    path.write_bytes((canonical_json({**whole, "sha256": digest(whole)}) + "\n").encode())
    with pytest.raises(NewerFormatError, match=r"spec\.json: has format 2; this version of logitbank reads format 1"):
        LogitStore.open(storage.root)


def test_an_example_with_more_fields_is_read_and_one_that_requires_a_feature_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Descriptions are inside of parts."""
    describe = part.describe
    spec = store_spec(TARGETS["topk"])
    (records,) = units_of("topk", 1)
    for name, added in (("more", {**ADDED, "requires": []}), ("required", {"requires": ["bands"]})):

        def describe_more(record: Record, added: dict[str, Any] = added) -> bytes:
            fields = json.loads(describe(record))
            return canonical_json({**fields, **added, "example": {**fields["example"], "mood": 3}}).encode()

        storage = LocalStorage(tmp_path / name)
        create_store(storage, spec)
        with monkeypatch.context() as patch:
            patch.setattr(part, "describe", describe_more)
            if name == "required":  # a writer reads what it wrote
                patch.setattr(json_documents, "KNOWN_FEATURES", frozenset({"bands"}))
            write_unit(storage, spec, records)
        take_snapshot(storage)
        store = LogitStore.open(storage.root)
        if name == "required":
            with pytest.raises(NewerFormatError, match="example 0 of the part: requires the feature 'bands'"):
                list(store)
            assert len(store.window(0).tokens), "rows need no description"
        else:
            for record, expected in zip(store, records, strict=True):
                assert record.tokenized.example == expected.tokenized.example
            assert not verify_store(str(storage)).problems
