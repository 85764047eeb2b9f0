"""Snapshots: numbered, immutable lists of commits, each with an index from which a store opens at once."""

import hashlib
from dataclasses import asdict, dataclass

from cache.documents import digest, seal, unseal
from cache.errors import IntegrityError, StoreError
from cache.storage.base import Storage
from cache.store.commits import commit_path, committed_units, quarantined, read_commit, read_spec
from cache.store.index import StoreIndex


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was committed, and what was quarantined, when it was taken.

    commits: hash of the units' names and the hashes of their commits. index: name of the index file, after the
    SHA-256 of its content. quarantine: SHA-256 of the file of each key.
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
        return digest(asdict(self))


def take_snapshot(storage: Storage) -> Snapshot:
    """Pin all that is committed now. Returns the newest snapshot where nothing changed since it was taken."""
    spec = read_spec(storage)
    while True:
        latest = latest_snapshot(storage)
        commits = [read_commit(storage, unit) for unit in committed_units(storage)]
        for commit, _ in commits:
            if commit.fingerprint != spec.fingerprint:
                raise IntegrityError(f"{storage}/{commit_path(commit.unit)}: belongs to another spec")
        index = StoreIndex.from_commits(commits)
        data = index.to_bytes()
        name = f"snapshots/{hashlib.sha256(data).hexdigest()}.npz"
        snapshot = Snapshot(
            number=latest + 1,
            fingerprint=spec.fingerprint,
            units=len(commits),
            examples=len(index.key),
            commits=digest(index.commit_hashes()),
            index=name,
            quarantine={key: _sha256(storage, f"quarantine/{key}.json") for key in quarantined(storage)},
        )
        if latest:
            previous = read_snapshot(storage, latest)
            _write_companion(storage, previous)  # a kill may have come between the two files
            if (previous.commits, previous.quarantine) == (snapshot.commits, snapshot.quarantine):
                _mend_index(storage, previous, data)
                return previous
            _require_kept(storage, previous, index)
        storage.create(name, data)
        if storage.create(_snapshot_path(snapshot.number), seal(asdict(snapshot))):
            _write_companion(storage, snapshot)
            return snapshot


def latest_snapshot(storage: Storage) -> int:
    """Number of the newest snapshot that its file or its companion names, 0 where there is none."""
    return max(snapshot_numbers(storage), default=0)


def read_snapshot(storage: Storage, number: int) -> Snapshot:
    name = _snapshot_path(number)
    if storage.size(name) is None and number not in snapshot_numbers(storage):
        raise StoreError(f"{storage}: no snapshot {number}; the newest is {latest_snapshot(storage)}")
    return Snapshot(**unseal(storage.read(name), f"{storage}/{name}"))


def read_index(storage: Storage, snapshot: Snapshot) -> StoreIndex:
    """The index of a snapshot. Raises IntegrityError where it is missing, altered or another's."""
    data = storage.read(snapshot.index)
    if snapshot.index != f"snapshots/{hashlib.sha256(data).hexdigest()}.npz":
        raise IntegrityError(f"{storage}/{snapshot.index}: altered or truncated: its content does not match its name")
    return StoreIndex.from_bytes(data, f"{storage}/{snapshot.index}")


def snapshot_numbers(storage: Storage) -> list[int]:
    """Every number for which a snapshot and its companion must exist: 1 to the newest that either names."""
    return list(range(1, max([0, *_numbers(storage, ".json"), *_numbers(storage, ".sha256")]) + 1))


def _numbers(storage: Storage, suffix: str) -> list[int]:
    """Numbers of the files of that kind; what is named otherwise is not ours."""
    names = [name.removesuffix(suffix) for name in storage.names("snapshots", suffix)]
    return [int(name) for name in names if name.isdecimal() and name == str(int(name))]


def check_companion(storage: Storage, snapshot: Snapshot) -> None:
    """Raise IntegrityError unless the snapshot's companion file stands beside it and agrees."""
    name = _companion_path(snapshot.number)
    if storage.read(name) != _companion(snapshot):
        raise IntegrityError(f"{storage}/{name}: does not agree with snapshot {snapshot.number}")


def _mend_index(storage: Storage, snapshot: Snapshot, data: bytes) -> None:
    """Write the index of an unchanged snapshot again where it is missing or altered: its name is its content."""
    try:
        read_index(storage, snapshot)
    except IntegrityError:
        if snapshot.index == f"snapshots/{hashlib.sha256(data).hexdigest()}.npz":
            storage.remove_folder(snapshot.index)
            storage.create(snapshot.index, data)


def _require_kept(storage: Storage, previous: Snapshot, index: StoreIndex) -> None:
    """Raise IntegrityError where a unit of the snapshot before has lost its commit: a new one would hide that."""
    lost = sorted(set(read_index(storage, previous).commit_hashes()) - set(index.commit_hashes()))
    if lost:
        raise IntegrityError(f"{storage}/{commit_path(lost[0])}: missing, though snapshot {previous.number} lists it")


def _write_companion(storage: Storage, snapshot: Snapshot) -> None:
    # Two files vouch for each other: without the second, a deleted newest snapshot would leave no trace.
    storage.create(_companion_path(snapshot.number), _companion(snapshot))


def _companion(snapshot: Snapshot) -> bytes:
    return f"{snapshot.digest}  {snapshot.number}.json\n".encode()


def _sha256(storage: Storage, name: str) -> str:
    return hashlib.sha256(storage.read(name)).hexdigest()


def _snapshot_path(number: int) -> str:
    return f"snapshots/{number}.json"


def _companion_path(number: int) -> str:
    return f"snapshots/{number}.sha256"
