"""A store with every kind of file, and what reading or verifying says about a file that was damaged."""

import zipfile
from pathlib import Path

import numpy as np

from cache.errors import StoreError
from cache.parts.codebook_learning import list_codebook
from cache.parts.layout import PART_KIND, TAIL_ARRAYS, Profile
from cache.parts.zarr_zip import group_of_file
from cache.rows.record import Record
from cache.rows.sparse_targets import concatenate
from cache.rows.spec import TargetMode
from cache.storage.local import LocalStorage
from cache.store.claims.codebook_claim import claim_codebook
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
        claim_codebook(storage, 1, list_codebook(targets, tokens, VOCAB, by_token=mode == "sampled"), len(tokens))
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


def read_or_named(storage: LocalStorage, path: Path, expected: list[Record]) -> bool:
    """Whether reading noticed what was done to `path`. It either names the file or returns what was written."""
    try:
        found = contents(storage)
    except StoreError as error:
        assert str(path.relative_to(storage.root)) in str(error), error
        assert "\n" not in str(error)
        return True
    assert len(found) == len(expected)
    for record, other in zip(found, expected, strict=True):
        assert_same_record(record, other)
    return False


def is_read(path: Path) -> bool:
    """Whether a pinned reader needs the file: parts, codebooks, the spec. Lost snapshots are made again."""
    return path.name == "spec.json" or is_group(path)


def is_group(path: Path) -> bool:
    """Whether the file is a part or a codebook. A segment of the index, which is a group too, is made again."""
    return path.name.endswith(".zarr.zip") and path.parent.name != "index"


def regions(path: Path) -> dict[str, range]:
    """Places of a part or a codebook: the chunks and the index of each array, the tail, all other entries, the rest.

    A name that starts with "unread" is of bytes that no reader of ours looks at; one that starts with "perhaps" has
    some of these.
    """
    data = path.read_bytes()
    group = group_of_file(data, path.name)
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry.header_offset for entry in archive.infolist()}
        directory = archive.start_dir
    is_part = group.attributes["kind"] == PART_KIND
    tail = min(group.shards[name][0] for name in group.shards if name in TAIL_ARRAYS) if is_part else len(data)
    found, ends = {}, []
    for name, (offset, size) in group.shards.items():
        if offset < tail:
            index = size - group.spec(name).index_bytes
            found[f"chunks of {name}"] = range(offset, offset + index)
            found[f"{'unread ' if is_part else ''}index of {name}"] = range(offset + index, offset + size)
        ends.append(offset + size)
    if is_part:
        # The tail starts with the header of its first entry.
        found["tail"] = range(max(place for place in entries.values() if place < tail), len(data))
    else:
        found["perhaps the directory"] = range(directory, len(data))
    starts = sorted(place for place in entries.values() if place < found.get("tail", range(len(data), 0)).start)
    names = {place: name for name, place in entries.items()}
    for start in starts:
        kind = "perhaps" if names[start] == "zarr.json" else "unread"
        found[f"{kind} header of {names[start]}"] = range(start, start + 30 + len(names[start]))
    return {name: place for name, place in found.items() if len(place)}
