"""A store is a Zarr group: its attributes say what it is, and Zarr opens the groups that it names."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from cache.rows.spec import StoreSpec
from cache.storage.local import LocalStorage
from cache.store.commits import create_store, read_spec
from cache.store.logit_store import LogitStore
from cache.store.root_group import ROOT_GROUP
from cache.store.verify import verify_store
from tests.cache.store.damage import make_store


def open_group(path: Path) -> Any:
    return zarr.open_group(zarr.storage.ZipStore(path, mode="r"), mode="r")


def test_zarr_opens_a_store_and_what_its_attributes_name(tmp_path: Path) -> None:
    storage = make_store(tmp_path / "store")
    group: Any = zarr.open_group(storage.root, mode="r")
    attributes = dict(group.attrs)
    assert (attributes["kind"], attributes["format"], attributes["requires"]) == ("logitbank.store", 1, [])
    assert attributes["fingerprint"] == read_spec(storage).fingerprint
    with LogitStore.open(storage.root) as store:
        for pattern in attributes["where"]:
            if not pattern.startswith(("tokenizer", "forgotten", "withdrawn")):  # this store has none
                assert list(storage.root.glob(re.sub("<[a-z0-9]+>", "*", pattern))), pattern
        part = open_group(storage.path(store.index.part_info(0).path))
        tokens = np.concatenate([store.window(i).tokens for i in np.flatnonzero(store.index.unit_of == 0).tolist()])
        assert np.array_equal(part["tokens/id"][:], tokens)


def test_a_lost_or_altered_root_group_is_named_and_written_again(tmp_path: Path) -> None:
    storage = make_store(tmp_path / "store")
    path = storage.path(ROOT_GROUP)
    sound = path.read_bytes()
    rng = np.random.default_rng(0)
    for damaged in (b"", sound[:-2], *(_flipped(sound, int(place)) for place in rng.integers(0, len(sound), 30))):
        path.write_bytes(damaged)
        assert len(LogitStore.open(storage.root)) == 6
        (problem,) = verify_store(str(storage)).problems
        assert "zarr.json: altered" in problem and "verify --repair" in problem
    path.unlink()
    assert "zarr.json: missing" in verify_store(str(storage)).problems[0]
    assert verify_store(str(storage), repair=True).repaired == [ROOT_GROUP]
    assert path.read_bytes() == sound


def test_a_kill_before_the_root_group_is_repaired_by_the_next_writer(
    tmp_path: Path, spec: StoreSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = LocalStorage(tmp_path / "store")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("cache.store.commits.create_root_group", _interrupted)
        create_store(storage, spec)
    assert storage.size(ROOT_GROUP) is None
    create_store(storage, spec)
    assert storage.size(ROOT_GROUP) and not verify_store(str(storage)).problems


def _interrupted(*arguments: object) -> None:
    raise KeyboardInterrupt


def _flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
