"""Snapshots: numbered, immutable lists of commits. Each has an index from which a store opens at once."""

import hashlib
from dataclasses import asdict, dataclass

from cache.errors import IntegrityError, StoreError
from cache.json_documents import decode_document, digest, encode_document
from cache.storage.base import Storage
from cache.store.commits import commit_path, committed_units, read_commit, read_spec
from cache.store.index import StoreIndex
from cache.store.quarantine.entries import document_path, waiting_keys


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The commits and the quarantine of a store at one time.

    commits: hash of the names of the units and the hashes of their commits. index: name of the index file, which is
    the SHA-256 of its content. quarantine: SHA-256 of the file of each entry that waits, by its key.
    """

    number: int
    fingerprint: str
    units: int
    examples: int
    commits: str
    index: str
    quarantine: dict[str, str]

    @property
    def digest(self) -> str:
        """Hash of all fields."""
        return digest(asdict(self))


def take_snapshot(storage: Storage) -> Snapshot:
    """Pin everything that is committed now. If nothing changed, the newest snapshot is returned.

    Raises IntegrityError if a commit is altered, of another spec, or missing although the last snapshot lists it.
    """
    fingerprint = read_spec(storage).fingerprint
    while True:
        latest = latest_snapshot(storage)
        index = _index_of_commits(storage, fingerprint)
        data = index.to_bytes()
        snapshot = Snapshot(
            number=latest + 1,
            fingerprint=fingerprint,
            units=len(index.unit),
            examples=len(index.key),
            commits=digest(index.commit_hashes()),
            index=_index_path(data),
            quarantine={key: _sha256(storage, document_path(key)) for key in waiting_keys(storage)},
        )
        if latest:
            previous = read_snapshot(storage, latest)
            _write_companion(storage, previous)  # a writer may have been killed between the two files
            if (previous.commits, previous.quarantine) == (snapshot.commits, snapshot.quarantine):
                _restore_index(storage, previous, data)
                return previous
            _require_all_commits(storage, previous, index)
        storage.create(snapshot.index, data)
        if storage.create(_snapshot_path(snapshot.number), encode_document(asdict(snapshot))):
            _write_companion(storage, snapshot)
            return snapshot


def latest_snapshot(storage: Storage) -> int:
    """Number of the newest snapshot that has a file or a companion file; 0 if there is none."""
    return max(snapshot_numbers(storage), default=0)


def read_snapshot(storage: Storage, number: int) -> Snapshot:
    """The snapshot with this number. Raises StoreError if there is none, IntegrityError if it is missing or altered."""
    name = _snapshot_path(number)
    if storage.size(name) is None and number not in snapshot_numbers(storage):
        raise StoreError(f"{storage}: no snapshot {number}; the newest is {latest_snapshot(storage)}")
    return Snapshot(**decode_document(storage.read(name), f"{storage}/{name}"))


def read_index(storage: Storage, snapshot: Snapshot) -> StoreIndex:
    """The index of a snapshot. Raises IntegrityError if it is missing or altered."""
    data = storage.read(snapshot.index)
    if snapshot.index != _index_path(data):
        raise IntegrityError(f"{storage}/{snapshot.index}: altered or truncated: its content does not match its name")
    return StoreIndex.from_bytes(data, f"{storage}/{snapshot.index}")


def snapshot_numbers(storage: Storage) -> list[int]:
    """Numbers for which a snapshot and its companion must exist: 1 to the newest of either kind."""
    return list(range(1, max([0, *_numbers(storage, ".json"), *_numbers(storage, ".sha256")]) + 1))


def check_companion(storage: Storage, snapshot: Snapshot) -> None:
    """Raise IntegrityError unless the companion file of the snapshot exists and agrees with it."""
    name = _companion_path(snapshot.number)
    if storage.read(name) != _companion(snapshot):
        raise IntegrityError(f"{storage}/{name}: does not agree with snapshot {snapshot.number}")


def _index_of_commits(storage: Storage, fingerprint: str) -> StoreIndex:
    """The index of everything that is committed. Raises IntegrityError if a commit belongs to another spec."""
    commits = [read_commit(storage, unit) for unit in committed_units(storage)]
    for commit, _ in commits:
        if commit.fingerprint != fingerprint:
            raise IntegrityError(f"{storage}/{commit_path(commit.unit)}: belongs to another spec")
    return StoreIndex.from_commits(commits)


def _numbers(storage: Storage, suffix: str) -> list[int]:
    """Numbers of the files with this suffix. Files with other names do not belong to the format."""
    names = [name.removesuffix(suffix) for name in storage.names("snapshots", suffix)]
    return [int(name) for name in names if name.isdecimal() and name == str(int(name))]


def _restore_index(storage: Storage, snapshot: Snapshot, data: bytes) -> None:
    """Write the index of an unchanged snapshot again if it is missing or altered: its name is its hash."""
    try:
        read_index(storage, snapshot)
    except IntegrityError:
        if snapshot.index == _index_path(data):
            storage.remove_folder(snapshot.index)
            storage.create(snapshot.index, data)


def _require_all_commits(storage: Storage, previous: Snapshot, index: StoreIndex) -> None:
    """Raise IntegrityError if a unit of the previous snapshot lost its commit, which a new snapshot would hide."""
    lost = sorted(set(read_index(storage, previous).commit_hashes()) - set(index.commit_hashes()))
    if lost:
        raise IntegrityError(f"{storage}/{commit_path(lost[0])}: missing, though snapshot {previous.number} lists it")


def _write_companion(storage: Storage, snapshot: Snapshot) -> None:
    # Without a second file, a deleted newest snapshot would leave no trace.
    storage.create(_companion_path(snapshot.number), _companion(snapshot))


def _companion(snapshot: Snapshot) -> bytes:
    return f"{snapshot.digest}  {snapshot.number}.json\n".encode()


def _sha256(storage: Storage, name: str) -> str:
    return hashlib.sha256(storage.read(name)).hexdigest()


def _index_path(data: bytes) -> str:
    return f"snapshots/{hashlib.sha256(data).hexdigest()}.npz"


def _snapshot_path(number: int) -> str:
    return f"snapshots/{number}.json"


def _companion_path(number: int) -> str:
    return f"snapshots/{number}.sha256"
