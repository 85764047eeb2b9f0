"""Withdrawn units: documents that name the unit that counts in the place of each, once that is committed."""

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor

from cache.errors import IntegrityError
from cache.json_documents import decode_document, encode_document
from cache.storage.base import Storage

FOLDER, DOCUMENT = "withdrawn", ".json"
# Documents that are read at a time.
READERS = 16


def withdraw_unit(storage: Storage, unit: str, successor: str) -> None:
    """Record that `successor` counts in the place of `unit`, from its commit on; "" if nothing of the unit is left.

    An earlier successor that is named already is replaced: the caller knows that it is not committed.
    """
    name = withdrawn_path(unit)
    document = encode_document({"unit": unit, "successor": successor})
    if storage.size(name) is not None and storage.read(name) != document:
        storage.remove_folder(name)
    storage.create(name, document)


def read_withdrawn(storage: Storage) -> dict[str, str]:
    """The successor of each withdrawn unit. Raises IntegrityError if a document is damaged.

    Each snapshot reads all documents, which are never removed: several at a time, because a service needs long for one.
    """
    units = withdrawn_units(storage)
    if not units:
        return {}
    with ThreadPoolExecutor(READERS, "withdrawn") as pool:
        return dict(zip(units, pool.map(lambda unit: _successor(storage, unit), units), strict=True))


def withdrawn_units(storage: Storage) -> list[str]:
    """Sorted names of the units that have such a document."""
    return [name.removesuffix(DOCUMENT) for name in storage.names(FOLDER, DOCUMENT)]


def superseded_units(withdrawn: Mapping[str, str], committed: Collection[str]) -> dict[str, str]:
    """The unit that counts in the place of each withdrawn one, "" for none.

    withdrawn: the successor of each unit. committed: names of all commits. A unit whose successor is not committed
    still counts itself. A successor may have one of its own.
    """
    present = committed if isinstance(committed, set | frozenset | dict) else set(committed)
    found: dict[str, str] = {}
    for unit in withdrawn:
        last = unit
        while last and last in withdrawn:
            following = withdrawn[last]
            if following and following not in present and following not in withdrawn:
                break
            last = following
        if last != unit and (not last or last in present):
            found[unit] = last
    return found


def withdrawn_path(unit: str) -> str:
    """Name of the document about a unit."""
    return f"{FOLDER}/{unit}{DOCUMENT}"


def _successor(storage: Storage, unit: str) -> str:
    name = withdrawn_path(unit)
    body = decode_document(storage.read(name), f"{storage}/{name}", ("unit", "successor"))
    if body["unit"] != unit:
        raise IntegrityError(f"{storage}/{name}: is not about this unit")
    return str(body["successor"])
