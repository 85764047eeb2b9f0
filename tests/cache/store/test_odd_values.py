"""Documents that are intact and wrong: whatever value a field has, the answer is one line that names the file."""

import contextlib
import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import google_crc32c
import pytest

from cache.errors import IntegrityError
from cache.json_documents import decode_document, encode_document
from cache.storage.local import LocalStorage
from cache.store.commits import commit_path, committed_units, create_store
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from cache.store.verify import verify_store
from tests.cache.rows.rows import TARGETS, store_spec
from tests.cache.store.upkeep.test_forgetting import make_records

ODD: list[Any] = [None, -1, 2**70, 1.5, True, "x", []]
Place = tuple[str | int, ...]
OF_COMMITS: list[Place] = [
    *[("part", name) for name in ("path", "bytes", "tail", "root", "crc32c")],
    *[("examples", name, 0) for name in ("key", "origin", "tokens", "rows")],
    *[("origins",), ("origins", 0), ("codebook",), ("profile",), ("counts", "entries"), ("kl",), ("sha256_of_part",)],
]
OF_PARTS: list[Place] = [
    *[("attributes", name) for name in ("bands", "checked", "chunk_tokens", "checksums", "shards")],
    *[("attributes", "checked", 0), ("attributes", "bands", 0), ("attributes", "shards", "tokens/id", 0)],
]
ARRAY = ("consolidated_metadata", "metadata", "tokens/id")
OF_ARRAYS: list[Place] = [
    (*ARRAY, "shape", 0),
    (*ARRAY, "codecs", 0, "configuration", "chunk_shape", 0),
    (*ARRAY, "codecs", 0, "configuration", "codecs", 0, "name"),
]


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    storage, spec = LocalStorage(tmp_path / "store"), store_spec(TARGETS["topk"])
    create_store(storage, spec)
    write_unit(storage, spec, make_records(TARGETS["topk"])[0])
    return storage


def commit_of(storage: LocalStorage) -> dict[str, Any]:
    body = decode_document(storage.read(commit_path(committed_units(storage)[0])), "commit")
    return {name: value for name, value in body.items() if name not in ("format", "requires")}


def replaced(document: dict[str, Any], place: Place, value: object) -> dict[str, Any]:
    copy: Any = json.loads(json.dumps(document))
    inner = copy
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return dict(copy)


def read_everything(storage: LocalStorage, commit: dict[str, Any]) -> None:
    """Read a store with this commit. Any error but an IntegrityError fails."""
    storage.path(commit_path(committed_units(storage)[0])).write_bytes(encode_document(commit))
    for folder in ("snapshots", "index"):
        storage.remove_folder(folder)
    with contextlib.suppress(IntegrityError):
        take_snapshot(storage)
        store = LogitStore.open(storage.root)
        repr(store.info())
        list(store)
    verify_store(str(storage))


@pytest.mark.parametrize("place", OF_COMMITS, ids=lambda place: ".".join(map(str, place)))
def test_odd_values_of_a_commit(place: Place, storage: LocalStorage) -> None:
    body = commit_of(storage)
    for value in ODD:
        read_everything(storage, replaced(body, place, value))


@pytest.mark.parametrize("place", OF_PARTS + OF_ARRAYS, ids=lambda place: ".".join(map(str, place)))
def test_odd_values_of_a_part(place: Place, storage: LocalStorage) -> None:
    """The checksums of its commit are those of the odd part."""
    body = commit_of(storage)
    path = storage.path(body["part"]["path"])
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        group = json.loads(archive.read("zarr.json"))
    for value in [*ODD, 2**40, 2**62]:
        _write_part(path, data, body, json.dumps(replaced(group, place, value)))
        read_everything(storage, body)


def test_metadata_that_would_fill_the_memory(storage: LocalStorage) -> None:
    body = commit_of(storage)
    path = storage.path(body["part"]["path"])
    _write_part(path, path.read_bytes(), body, "[" * (65 << 20))
    read_everything(storage, body)
    assert any("zarr.json does not describe" in line for line in verify_store(str(storage)).problems)


def _write_part(path: Path, data: bytes, commit: dict[str, Any], root: str) -> None:
    """Give a part another zarr.json, and the commit the checksums of it."""
    tail = io.BytesIO()
    with zipfile.ZipFile(tail, "w") as archive:
        archive.writestr(zipfile.ZipInfo("zarr.json"), root, zipfile.ZIP_DEFLATED)
    new = data[: commit["part"]["root"]] + tail.getvalue()
    path.write_bytes(new)
    commit["part"] |= {"bytes": len(new), "crc32c": google_crc32c.value(new[commit["part"]["tail"] :])}
    commit["sha256_of_part"] = hashlib.sha256(new).hexdigest()
