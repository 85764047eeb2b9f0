"""Take snapshots: numbered, immutable lists of commits. Each has an index from which a store opens at once."""

import logging
from contextlib import suppress
from dataclasses import asdict

from cache.errors import IntegrityError
from cache.json_documents import encode_document
from cache.storage.base import Storage
from cache.store.commits import commit_path, committed_units, read_commit, read_spec
from cache.store.index import StoreIndex
from cache.store.snapshot_reading import (
    Snapshot,
    check_companion,
    companion,
    companion_path,
    index_path,
    latest_snapshot,
    open_snapshot,
    quarantine_hashes,
    read_index,
    read_snapshot,
    recover_snapshot,
    snapshot_path,
)


def take_snapshot(storage: Storage) -> Snapshot:
    """Pin everything that is committed now. If nothing changed, the newest snapshot is returned.

    Raises IntegrityError if a commit is altered, of another spec, or missing although an earlier snapshot lists it.
    """
    fingerprint = read_spec(storage).fingerprint
    while True:
        latest = latest_snapshot(storage)
        index = _index_of_commits(storage, fingerprint)
        data = index.to_bytes()
        snapshot = Snapshot.of_index(latest + 1, fingerprint, index, index_path(data), quarantine_hashes(storage))
        pinned = _newest_readable(storage, latest)
        if pinned:
            previous, listed = pinned
            if previous.number == latest:
                with suppress(IntegrityError):  # which 'verify' names
                    restore_snapshot(storage, latest)  # a writer may have been killed between its files
                if (previous.commits, previous.quarantine) == (snapshot.commits, snapshot.quarantine):
                    return previous
            _require_all_commits(storage, previous, listed, index)
        storage.create(snapshot.index, data)
        if storage.create(snapshot_path(snapshot.number), encode_document(asdict(snapshot))):
            storage.create(companion_path(snapshot.number), companion(snapshot))
            if storage.size(snapshot.index) is None:  # of a killed writer, and removed by garbage collection meanwhile
                storage.create(snapshot.index, data)
            return snapshot


def restore_snapshot(storage: Storage, number: int) -> list[str]:
    """Write the lost or damaged files of a snapshot again. Returns their names.

    Raises IntegrityError, and changes nothing, if the snapshot cannot be made again from the commits.
    """
    snapshot, index = open_snapshot(storage, number, quiet=True)
    try:
        check_companion(storage, snapshot)
    except IntegrityError as error:
        snapshot = _true_snapshot(storage, snapshot, index, error)
    data = index.to_bytes()
    files = [
        (snapshot_path(number), encode_document(asdict(snapshot))),
        (companion_path(number), companion(snapshot)),
    ]
    if not _is_intact(storage, snapshot):
        if index_path(data) != snapshot.index:
            raise IntegrityError(
                f"{storage}/{snapshot.index}: lost; this version writes an index of the same content as other bytes"
            )
        files.append((snapshot.index, data))
    restored = []
    for name, content in files:
        if storage.size(name) is None or storage.read(name) != content:
            storage.remove_folder(name)
            storage.create(name, content)
            restored.append(name)
    return restored


def _true_snapshot(storage: Storage, snapshot: Snapshot, index: StoreIndex, fault: IntegrityError) -> Snapshot:
    """Which snapshot is right, if a document and its companion disagree or the companion is lost.

    A companion that something in the store agrees with is right. Otherwise a document that agrees with its index is.
    """
    try:
        return recover_snapshot(storage, snapshot.number, str(fault))
    except IntegrityError:
        expected = Snapshot.of_index(
            snapshot.number, read_spec(storage).fingerprint, index, snapshot.index, snapshot.quarantine
        )
        if expected != snapshot:
            raise
    return snapshot


def _is_intact(storage: Storage, snapshot: Snapshot) -> bool:
    """Whether the index file of a snapshot is there and unchanged."""
    try:
        read_index(storage, snapshot)
    except IntegrityError:
        return False
    return True


def _newest_readable(storage: Storage, latest: int) -> tuple[Snapshot, StoreIndex] | None:
    """The newest snapshot that can be read or made again, and its index. None if there is none.

    Raises IntegrityError if one that cannot be made again lists more units than are committed: then commits are lost.
    """
    for number in range(latest, 0, -1):
        try:
            return open_snapshot(storage, number, quiet=True)
        except IntegrityError as error:
            _require_enough_commits(storage, number, error)
            logging.getLogger(__name__).warning("%s; the next snapshot lists all commits", error)
    return None


def _require_enough_commits(storage: Storage, number: int, fault: IntegrityError) -> None:
    try:
        units = read_snapshot(storage, number).units
    except IntegrityError:
        return
    if units > len(committed_units(storage)):
        raise fault


def _index_of_commits(storage: Storage, fingerprint: str) -> StoreIndex:
    """The index of everything that is committed. Raises IntegrityError if a commit belongs to another spec."""
    commits = [read_commit(storage, unit) for unit in committed_units(storage)]
    for commit, _ in commits:
        if commit.fingerprint != fingerprint:
            raise IntegrityError(f"{storage}/{commit_path(commit.unit)}: belongs to another spec")
    return StoreIndex.from_commits(commits)


def _require_all_commits(storage: Storage, previous: Snapshot, listed: StoreIndex, index: StoreIndex) -> None:
    """Raise IntegrityError if a unit of the previous snapshot lost its commit, which a new snapshot would hide."""
    lost = sorted(set(listed.commit_hashes()) - set(index.commit_hashes()))
    if lost:
        raise IntegrityError(f"{storage}/{commit_path(lost[0])}: missing, though snapshot {previous.number} lists it")
