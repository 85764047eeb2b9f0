"""What every copy of a store into another one shares: which examples a unit has, and what the copy must not keep."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from cache.errors import InputError
from cache.storage.base import Storage
from cache.store.commits import SPEC
from cache.store.logit_store import LogitStore
from cache.store.quarantine.entries import document_path, quarantine_example, read_entry
from cache.store.segments.keys import Array, is_among, keys_of_hex
from cache.store.snapshot_reading import read_snapshot
from cache.store.withdrawal.forgotten import forgotten_keys, mark_forgotten, read_forgotten


def require_other_store(source: str, target: str) -> None:
    """Raise InputError if the target of a copy is its source, lies inside it, or is a folder with other files."""
    if _normalised_uri(source) == _normalised_uri(target):
        raise InputError(f"{target}: is the source itself; give another store as target")
    if "://" in target:
        return
    folder = Path(target)
    if "://" not in source and folder.resolve().is_relative_to(Path(source).resolve()):
        raise InputError(f"{target}: lies inside the store itself; give a folder outside")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / SPEC).is_file():
        raise InputError(f"{target}: has other files and no store; give a new folder")


def units_of_copy(store: LogitStore, target: Storage, unit_examples: int | None = None) -> list[npt.NDArray[np.int64]]:
    """Examples of each unit of the copy: the units of the store, or others of `unit_examples`.

    Examples that are forgotten in the store are marked in the target too. No unit has one that is forgotten there.
    """
    forgotten = _copy_forgotten(store, target)
    keys = np.concatenate([each.in_order for each in store.index.keys])
    examples = np.flatnonzero(~is_among(keys, forgotten))
    if unit_examples is None:
        cuts = np.flatnonzero(np.diff(store.index.unit_of[examples])) + 1
    else:
        cuts = np.arange(unit_examples, len(examples), unit_examples)
    return [unit for unit in np.split(examples, cuts) if len(unit)]


def copy_quarantine(store: LogitStore, target: Storage) -> None:
    """Give the target the quarantine of the store's snapshot."""
    if store.snapshot is None:
        return
    forgotten = set(forgotten_keys(target))
    for key in read_snapshot(store.storage, store.snapshot, quiet=True).quarantine:
        if key in forgotten:
            continue
        if store.storage.size(document_path(key)) is not None:  # a retry may have removed it after the snapshot
            entry = read_entry(store.storage, key)
            quarantine_example(target, key, entry.id, entry.reason, entry.time)


def _copy_forgotten(store: LogitStore, target: Storage) -> Array:
    """Mark the examples in the target that are forgotten in the store. Returns the keys of both, sorted."""
    for key in forgotten_keys(store.storage):
        mark_forgotten(target, [key], read_forgotten(store.storage, key).reason)
    return keys_of_hex(forgotten_keys(target))


def _normalised_uri(uri: str) -> str:
    return uri.rstrip("/") if "://" in uri else str(Path(uri).resolve())
