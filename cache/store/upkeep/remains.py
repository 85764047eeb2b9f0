"""Where forgotten examples still are: in commits, segments of the index, attempts of writers, and the quarantine."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cache.errors import StoreError
from cache.parts import layout
from cache.parts.zarr_zip import decode_file
from cache.storage.base import Storage
from cache.store.commits import committed_units, read_commit
from cache.store.quarantine.entries import document_path, quarantined_keys
from cache.store.segments.keys import Array, keys_of_hex
from cache.store.snapshot_reading import read_snapshot, snapshot_numbers, snapshot_path
from cache.store.withdrawal.forgotten import forgotten_keys


@dataclass(frozen=True, slots=True)
class Remains:
    """Names of files with forgotten examples. commits: of units; parts have what their commits list. attempts: parts
    that no commit names, also those that are cut off and may have one. drafts: of writers that were killed."""

    commits: tuple[str, ...]
    segments: tuple[str, ...]
    snapshots: tuple[str, ...]
    attempts: tuple[str, ...]
    drafts: tuple[str, ...]
    quarantine: tuple[str, ...]

    @property
    def files(self) -> tuple[str, ...]:
        """All names."""
        return self.commits + self.segments + self.snapshots + self.attempts + self.drafts + self.quarantine


def find_remains(storage: Storage) -> Remains:
    """Look for forgotten examples in every file that can have their key or their texts. Committed files that cannot be
    read are left to 'verify', which names them.
    """
    hexadecimal = forgotten_keys(storage)
    if not hexadecimal:
        return Remains((), (), (), (), (), ())
    keys = set(hexadecimal)
    commits, parts = [], set()
    for unit in committed_units(storage):
        try:
            commit, _ = read_commit(storage, unit)
        except StoreError:
            continue
        parts.add(commit.part.path)
        if any(example.key in keys for example in commit.examples):
            commits.append(f"commits/{unit}.json")
    wanted = keys_of_hex(hexadecimal)
    segments = [f"index/{name}" for name in storage.names("index", ".zarr.zip")]
    paths = [f"parts/{unit}/{name}" for unit in storage.names("parts") for name in storage.names(f"parts/{unit}")]
    attempts = [path for path in paths if path not in parts and has_described(storage, path, hexadecimal) is not False]
    quarantined = keys.intersection(quarantined_keys(storage))
    return Remains(
        tuple(commits),
        tuple(path for path in segments if has_key(storage, path, wanted)),
        tuple(snapshot_path(number) for number in snapshot_numbers(storage) if _lists(storage, number, keys)),
        tuple(attempts),
        tuple(draft for draft in storage.drafts() if draft_has_key(storage, draft, hexadecimal)),
        tuple(document_path(key) for key in sorted(quarantined)),
    )


def has_key(storage: Storage, path: str, keys: Array) -> bool:
    """Whether a segment of the index has one of these keys. A file that cannot be read has none."""
    try:
        _, arrays = decode_file(storage.read(path), ("keys/sorted",), path)
    except StoreError:
        return False
    stored = np.ascontiguousarray(arrays.get("keys/sorted", np.zeros((0, 16), np.uint8))).view(keys.dtype).ravel()
    return bool(np.isin(keys, stored).any())


def has_described(storage: Storage, path: str, keys: list[str]) -> bool | None:
    """Whether a part describes an example with one of these keys. None: the file cannot be read, or not any more."""
    try:
        _, arrays = decode_file(storage.read(path), (layout.DESCRIPTIONS,), path)
    except StoreError:
        return None if storage.size(path) else False
    text = arrays[layout.DESCRIPTIONS].tobytes() if layout.DESCRIPTIONS in arrays else b""
    return any(f'"key": "{key}"'.encode() in text for key in keys)


def draft_has_key(storage: Storage, path: str, keys: Sequence[str]) -> bool:
    """Whether the file of an unfinished write has one of these keys, as text or as bytes. One that is gone has none."""
    try:
        data = storage.read(path)
    except StoreError:
        return False
    return any(key.encode() in data or bytes.fromhex(key) in data for key in keys)


def _lists(storage: Storage, number: int, keys: set[str]) -> bool:
    """Whether a snapshot lists one of the keys in its quarantine."""
    try:
        return not keys.isdisjoint(read_snapshot(storage, number, quiet=True).quarantine)
    except StoreError:
        return False
