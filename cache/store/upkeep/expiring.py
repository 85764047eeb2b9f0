"""Remove old snapshots, the oldest first. A run that is pinned to one of them cannot continue."""

from datetime import UTC, datetime

from cache.errors import InputError
from cache.json_documents import encode_document
from cache.storage.base import Storage
from cache.store.commits import read_spec
from cache.store.snapshot_reading import (
    copy_path,
    expired_path,
    read_snapshot,
    snapshot_files,
    snapshot_numbers,
    snapshot_path,
)


def expire_snapshots(storage: Storage, keep: int | None = None, before: datetime | None = None) -> list[int]:
    """Remove all snapshots but the newest `keep`, or those that were taken before a time. Returns their numbers.

    The newest snapshot always stays, and so do all after one that stays. What only they listed is removed by garbage
    collection. before: a time without a zone is UTC. Raises InputError unless exactly one of the two is given.
    """
    read_spec(storage)
    if (keep is None) == (before is None):
        raise InputError("give either the number of snapshots to keep or a date")
    if keep is not None and keep < 1:
        raise InputError(f"keep {keep} snapshots: give 1 or more; the newest snapshot always stays")
    numbers = snapshot_numbers(storage)
    expired = []
    for number in numbers[: -keep if keep else -1]:
        if before is not None:
            taken = datetime.fromisoformat(read_snapshot(storage, number).time)
            if taken >= (before if before.tzinfo else before.replace(tzinfo=UTC)):
                break
        expired.append(number)
    if expired:
        # First of all, so that no number is given again: what a writer that sleeps has read may be removed meanwhile.
        document = encode_document({"snapshot": expired[-1], "time": datetime.now(UTC).isoformat(timespec="seconds")})
        storage.create(expired_path(expired[-1]), document)
    for name in expired_files(storage):
        storage.remove_folder(name)
    return expired


def expired_files(storage: Storage) -> list[str]:
    """Names of all files of expired snapshots, in the order in which they are removed."""
    numbers, expired = snapshot_files(storage)
    old = [number for number in numbers if number <= expired]
    return [name for n in old for name in (copy_path(n), snapshot_path(n)) if storage.size(name) is not None]
