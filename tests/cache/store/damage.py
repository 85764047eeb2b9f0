"""A store with every kind of file, and what reading or verifying says about a file that was damaged."""

from pathlib import Path

import numpy as np

from cache.errors import StoreError
from cache.parts.codebook_learning import list_codebook
from cache.parts.layout import Profile
from cache.rows.record import Record
from cache.rows.sparse_targets import concatenate
from cache.rows.spec import TargetMode
from cache.storage.local import LocalStorage
from cache.store.claims.codebook_claim import CLAIM, claim_codebook
from cache.store.commits import create_store
from cache.store.logit_store import LogitStore
from cache.store.quarantine.entries import quarantine_example
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from cache.store.verify import verify_store
from tests.cache.rows.rows import TARGETS, VOCAB, assert_same_record, random_record, store_spec


def units_of(mode: TargetMode, count: int, records: int = 3, seed: int = 0) -> list[list[Record]]:
    rng = np.random.default_rng(seed)
    return [[random_record(rng, f"{unit} {i}", 3, 12, TARGETS[mode]) for i in range(records)] for unit in range(count)]


def make_store(folder: Path, mode: TargetMode = "topk", profile: Profile = "compact", units: int = 2) -> LocalStorage:
    """A store with every kind of file: a codebook with lists, a snapshot after each unit, quarantine."""
    spec = store_spec(TARGETS[mode])
    storage = LocalStorage(folder)
    create_store(storage, spec)
    work = units_of(mode, units)
    if profile == "compact":
        targets = concatenate([record.targets for unit in work for record in unit])
        tokens = np.concatenate([record.tokenized.tokens for unit in work for record in unit])
        claim_codebook(storage, list_codebook(targets, tokens, VOCAB, by_token=mode == "sampled"))
    quarantine_example(storage, "0" * 32, "bad", "too long")
    for unit in work:
        write_unit(storage, spec, unit, profile)
        take_snapshot(storage)
    return storage


def all_files(storage: LocalStorage) -> list[Path]:
    return sorted(path for path in storage.root.rglob("*") if path.is_file())


def complaints(storage: LocalStorage) -> str:
    try:
        return " ".join(verify_store(str(storage)).problems)
    except StoreError as error:
        return str(error)


def contents(storage: LocalStorage) -> list[Record]:
    return list(LogitStore.open(str(storage)))


def array_of(path: Path) -> Path:
    """What a message calls the data of an array: the folder of the array. Other files have their own path."""
    return next((parent.parent for parent in path.parents if parent.name == "c"), path)


def read_or_named(storage: LocalStorage, path: Path, expected: list[Record]) -> bool:
    """Whether reading noticed what was done to `path`. It either names the file or returns what was written."""
    try:
        found = contents(storage)
    except StoreError as error:
        assert str(array_of(path).relative_to(storage.root)) in str(error), error
        assert "\n" not in str(error)
        return True
    assert len(found) == len(expected)
    for record, other in zip(found, expected, strict=True):
        assert_same_record(record, other)
    return False


def is_read(path: Path) -> bool:
    """Whether a pinned reader needs the file: the shards, the claim, the spec. Lost snapshots are made again."""
    if array_of(path) != path:
        # The grid is the spec's; the copy is for readers who do not know how it is made.
        return array_of(path).name != "grid"
    return path.name in ("spec.json", CLAIM)
