"""Garbage collection: remove what no commit, snapshot or claim counts, once it is surely nobody's work in progress."""

from dataclasses import dataclass, field

from cache.errors import IntegrityError
from cache.storage.base import Storage
from cache.store.codebook_claim import CLAIM, read_claim
from cache.store.commits import committed_units, read_commit, read_spec
from cache.store.snapshots import read_index, read_snapshot, snapshot_numbers

# A writer needs minutes from its first file to its commit; whatever is older was left by one that died.
GRACE_SECONDS = 24 * 3600.0


@dataclass(slots=True)
class SweepReport:
    """removed: what is gone, or would be. young: what may still be somebody's work. bytes: of what is removed."""

    removed: list[str] = field(default_factory=list)
    young: list[str] = field(default_factory=list)
    bytes: int = 0


def sweep(storage: Storage, grace: float = GRACE_SECONDS, dry_run: bool = False) -> SweepReport:
    """Remove attempts, codebooks, indexes and drafts that nothing counts and that are older than `grace` seconds.

    Raises IntegrityError, and removes nothing, where a commit, snapshot or index cannot be read: what it counts is then
    unknown.
    """
    read_spec(storage)
    counted = _counted(storage)
    units = storage.names("parts")
    candidates = [f"parts/{unit}/{attempt}" for unit in units for attempt in storage.names(f"parts/{unit}")]
    candidates += [f"codebooks/{name}" for name in storage.names("codebooks")]
    candidates += [f"snapshots/{name}" for name in storage.names("snapshots", ".npz")]
    candidates += storage.drafts()
    report = SweepReport()
    for name in candidates:
        if name in counted:
            continue
        if storage.age(name) < grace:
            report.young.append(name)
            continue
        report.removed.append(name)
        report.bytes += sum(storage.size(file) or 0 for file in storage.walk(name))
        if not dry_run:
            storage.remove_folder(name)
    return report


def _counted(storage: Storage) -> set[str]:
    """Everything that a commit, a snapshot or the codebook's claim names."""
    places = [read_commit(storage, unit)[0].place for unit in committed_units(storage)]
    counted: set[str] = set()
    for number in snapshot_numbers(storage):
        snapshot = read_snapshot(storage, number)
        counted.add(snapshot.index)
        index = read_index(storage, snapshot)
        places += [index.part_place(unit) for unit in range(len(index.unit))]
    claim = read_claim(storage)
    if claim is None and any(place.codebook for place in places):
        raise IntegrityError(f"{storage}/{CLAIM}: missing, though parts were written with a codebook")
    return counted | {place.path for place in places} | ({claim["path"]} if claim else set())
