"""Garbage collection: remove files that no commit, snapshot or claim refers to, once no writer can need them."""

from dataclasses import dataclass, field

from cache.errors import IntegrityError
from cache.storage.base import Storage
from cache.store.codebook_claim import CLAIM, read_claim
from cache.store.commits import commit_path, committed_units, read_commit, read_spec
from cache.store.quarantine.entries import entry_files, obsolete_keys
from cache.store.snapshots import read_index, read_snapshot, snapshot_numbers

# A writer needs minutes from its first file to its commit. Older files belong to a writer that was killed.
GRACE_SECONDS = 24 * 3600.0


@dataclass(slots=True)
class GarbageReport:
    """removed: names that were removed, or would be in a dry run; bytes: their size. young: names of unreferenced files
    that a writer may still need."""

    removed: list[str] = field(default_factory=list)
    young: list[str] = field(default_factory=list)
    bytes: int = 0


def collect_garbage(storage: Storage, grace: float = GRACE_SECONDS, dry_run: bool = False) -> GarbageReport:
    """Remove unreferenced attempts, codebooks, indexes and drafts that are older than `grace` seconds, and
    obsolete entries of the quarantine.

    Raises IntegrityError, and removes nothing, if a commit, snapshot or index cannot be read, because then it is
    unknown which files are referenced.
    """
    read_spec(storage)
    referenced = _referenced_names(storage)
    units = storage.names("parts")
    candidates = [f"parts/{unit}/{attempt}" for unit in units for attempt in storage.names(f"parts/{unit}")]
    candidates += [f"codebooks/{name}" for name in storage.names("codebooks")]
    candidates += [f"snapshots/{name}" for name in storage.names("snapshots", ".npz")]
    candidates += storage.drafts()
    candidates += [name for key in obsolete_keys(storage) for name in entry_files(key)]
    report = GarbageReport()
    for name in candidates:
        if name in referenced:
            continue
        if storage.age(name) < grace:
            report.young.append(name)
            continue
        size = sum(storage.size(file) or 0 for file in storage.walk(name))
        if _is_committed_now(storage, name):
            continue
        report.removed.append(name)
        report.bytes += size
        if not dry_run:
            storage.remove_folder(name)
    return report


def _is_committed_now(storage: Storage, name: str) -> bool:
    """Whether a commit that was made since the start of the collection refers to this attempt."""
    if not name.startswith("parts/"):
        return False
    unit = name.split("/")[1]
    return storage.size(commit_path(unit)) is not None and read_commit(storage, unit)[0].part.path == name


def _referenced_names(storage: Storage) -> set[str]:
    """Names of all parts, indexes and codebooks that a commit, a snapshot or the codebook's claim refers to."""
    parts = [read_commit(storage, unit)[0].part for unit in committed_units(storage)]
    referenced: set[str] = set()
    listed: set[str] = set()  # entries of the quarantine in the newest snapshot
    for number in snapshot_numbers(storage):
        snapshot = read_snapshot(storage, number)
        referenced.add(snapshot.index)
        listed = {name for key in snapshot.quarantine for name in entry_files(key)}
        index = read_index(storage, snapshot)
        parts += [index.part_info(unit) for unit in range(len(index.unit))]
    claim = read_claim(storage)
    if claim is None and any(part.codebook for part in parts):
        raise IntegrityError(f"{storage}/{CLAIM}: missing, though parts were written with a codebook")
    return referenced | listed | {part.path for part in parts} | ({claim["path"]} if claim else set())
