"""Mark examples as forgotten, by id or by key. What marks do: cache.store.withdrawal.forgotten."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cache.errors import InputError, plain_reason
from cache.storage.open import open_storage
from cache.store.commits import read_spec
from cache.store.logit_store import LogitStore
from cache.store.quarantine.entries import read_entries
from cache.store.segments.keys import keys_of_hex
from cache.store.snapshot_reading import current_index
from cache.store.withdrawal.forgotten import forgotten_keys, mark_forgotten

# Examples whose descriptions are in memory at a time.
BLOCK = 1024


@dataclass(frozen=True, slots=True)
class ForgetReport:
    """keys: those that were marked now. known: those that were marked before. absent: those of `keys` that the store
    does not have now: a later capture leaves them out."""

    keys: tuple[str, ...]
    known: tuple[str, ...]
    absent: tuple[str, ...]


def forget_examples(uri: str, names: Sequence[str], reason: str = "") -> ForgetReport:
    """Mark the examples with these ids or whole keys as forgotten. An id stands for all examples that have it.

    They are looked for in what is committed now and in the quarantine. Raises InputError, and marks nothing, if a name
    is neither an id nor a key of 32 hexadecimal digits.
    """
    storage = open_storage(uri)
    spec = read_spec(storage)
    store = LogitStore(storage, spec, current_index(storage, spec.fingerprint, has_forgotten=True), None, frozenset())
    keys_of = _keys_of_ids(store, set(names))
    found: list[str] = []
    for name in names:
        is_key = bool(re.fullmatch("[0-9a-fA-F]{32}", name))
        if name in keys_of:
            found += keys_of[name]
        elif is_key:
            found.append(name.lower())
        else:
            raise InputError(
                f"{uri}: no example has the id {name!r}, and it is not a whole key of 32 hexadecimal digits; nothing "
                "was marked. An id is no longer known once a snapshot left its example out"
            )
    found = list(dict.fromkeys(found))
    known = set(forgotten_keys(storage))
    new = mark_forgotten(storage, found, reason)
    present = store.index.contains(keys_of_hex(new)).tolist()
    waiting = {entry.key for entry in read_entries(storage)}
    absent = [key for key, there in zip(new, present, strict=True) if not there and key not in waiting]
    return ForgetReport(tuple(new), tuple(key for key in found if key in known), tuple(absent))


def read_names(path: Path) -> list[str]:
    """Ids and keys from a file, one on each line. Raises InputError if it cannot be read or has none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {plain_reason(error)}") from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise InputError(f"{path}: has no id and no key; give one on each line")
    return names


def _keys_of_ids(store: LogitStore, names: set[str]) -> dict[str, list[str]]:
    """The keys of the examples whose id is one of the names. Descriptions are read only if a name is not a key."""
    keys_of: dict[str, list[str]] = {}
    hexadecimal = [name.lower() for name in names if re.fullmatch("[0-9a-fA-F]{32}", name)]
    if len(hexadecimal) == len(names) and store.index.contains(keys_of_hex(hexadecimal)).all():
        return {}
    for start in range(0, len(store), BLOCK):
        block = range(start, min(start + BLOCK, len(store)))
        for i, example in zip(block, store.texts(block), strict=True):
            if example.id in names:
                keys_of.setdefault(example.id, []).append(store.key(i))
    for entry in read_entries(store.storage):
        if entry.id in names:
            keys_of.setdefault(entry.id, []).append(entry.key)
    return keys_of
