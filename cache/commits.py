"""Which parts count: create-if-absent commits and numbered snapshots. No locks; the first to commit a unit wins."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cache.documents import digest, seal, unseal
from cache.errors import IntegrityError, StoreError
from cache.spec import StoreSpec
from cache.storage import LocalStorage

SPEC = "spec.json"


@dataclass(frozen=True, slots=True)
class CommittedExample:
    """What can be known of an example without opening its part. rows: tokens that carry a target."""

    key: str
    origin: str
    tokens: int
    rows: int


@dataclass(frozen=True, slots=True)
class FileSeal:
    """Length in bytes and SHA-256 of a file."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Commit:
    """The claim that `part` holds `unit`, with a seal for each of its files (paths relative to the store)."""

    unit: str
    part: str
    fingerprint: str
    examples: tuple[CommittedExample, ...]
    files: dict[str, FileSeal]
    entries: int
    retained_mass: float
    max_abs_error: float
    kl: float

    @property
    def rows(self) -> int:
        return sum(example.rows for example in self.examples)

    @property
    def size(self) -> int:
        """Bytes of all files of the part."""
        return sum(file.size for file in self.files.values())

    @classmethod
    def from_document(cls, body: dict[str, Any]) -> "Commit":
        examples = tuple(CommittedExample(*fields) for fields in body["examples"])
        files = {name: FileSeal(**fields) for name, fields in body["files"].items()}
        return cls(**{**body, "examples": examples, "files": files})

    def to_document(self) -> dict[str, Any]:
        rows = [[example.key, example.origin, example.tokens, example.rows] for example in self.examples]
        return {**asdict(self), "examples": rows}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An immutable list of commits, and of what was quarantined by then, each with the hash of its file."""

    number: int
    fingerprint: str
    commits: dict[str, str]
    quarantine: dict[str, str]

    @property
    def digest(self) -> str:
        return digest(asdict(self))


def unit_name(keys: Sequence[str]) -> str:
    """A unit is named after its examples, so that drivers which plan the same work race for the same name."""
    return digest(list(keys))[:24]


def create_store(storage: LocalStorage, spec: StoreSpec) -> None:
    """Claim an empty store for `spec`, or check that it already has that fingerprint."""
    if not storage.create(SPEC, seal(spec.to_document())):
        read_spec(storage).require_same(spec, str(storage))


def read_spec(storage: LocalStorage) -> StoreSpec:
    if storage.size(SPEC) is None:
        if storage.list("commits") or storage.list("snapshots"):
            raise IntegrityError(f"{storage}/{SPEC}: missing")
        raise StoreError(f"{storage}: not a store (no {SPEC}); run 'logitbank capture' to make one")
    return StoreSpec.from_document(unseal(storage.read(SPEC), f"{storage}/{SPEC}"), f"{storage}/{SPEC}")


def publish(storage: LocalStorage, commit: Commit) -> bool:
    """Make `commit` count. False where another writer's commit of the same unit already does."""
    return storage.create(_commit_path(commit.unit), seal(commit.to_document()))


def committed_units(storage: LocalStorage) -> list[str]:
    return [name.removesuffix(".json") for name in storage.list("commits", ".json")]


def read_commit(storage: LocalStorage, unit: str, sha256: str | None = None) -> Commit:
    """One commit. Raises IntegrityError where it is altered, or is not the one with hash `sha256`."""
    name = _commit_path(unit)
    data = storage.read(name)
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise IntegrityError(f"{storage}/{name}: not the file that the snapshot lists")
    return Commit.from_document(unseal(data, f"{storage}/{name}"))


def quarantine(storage: LocalStorage, key: str, example_id: str, reason: str) -> bool:
    """Set an example aside, with the reason, so that it is not forgotten. False where it already is."""
    return storage.create(f"quarantine/{key}.json", seal({"key": key, "id": example_id, "reason": reason}))


def quarantined(storage: LocalStorage) -> list[str]:
    """Keys set aside so far."""
    return [name.removesuffix(".json") for name in storage.list("quarantine", ".json")]


def take_snapshot(storage: LocalStorage) -> Snapshot:
    """Pin all that is committed now. Returns the newest snapshot where nothing changed since it was taken."""
    spec = read_spec(storage)
    while True:
        latest = latest_snapshot(storage)
        snapshot = Snapshot(
            number=latest + 1,
            fingerprint=spec.fingerprint,
            commits={unit: _sha256(storage, _commit_path(unit)) for unit in committed_units(storage)},
            quarantine={key: _sha256(storage, f"quarantine/{key}.json") for key in quarantined(storage)},
        )
        if latest:
            previous = read_snapshot(storage, latest)
            _write_companion(storage, previous)  # a kill may have come between the two files
            if (previous.commits, previous.quarantine) == (snapshot.commits, snapshot.quarantine):
                return previous
        if storage.create(_snapshot_path(snapshot.number), seal(asdict(snapshot))):
            _write_companion(storage, snapshot)
            return snapshot


def latest_snapshot(storage: LocalStorage) -> int:
    """Number of the newest snapshot, 0 where there is none."""
    return max((int(name.removesuffix(".json")) for name in storage.list("snapshots", ".json")), default=0)


def read_snapshot(storage: LocalStorage, number: int) -> Snapshot:
    name = _snapshot_path(number)
    if number not in snapshot_files(storage):
        raise StoreError(f"{storage}: no snapshot {number}; the newest is {latest_snapshot(storage)}")
    return Snapshot(**unseal(storage.read(name), f"{storage}/{name}"))


def snapshot_files(storage: LocalStorage) -> list[int]:
    """Every number for which a snapshot or its companion must exist: 1 to the newest that either names."""
    companions = [int(name.removesuffix(".sha256")) for name in storage.list("snapshots", ".sha256")]
    return list(range(1, max([latest_snapshot(storage), *companions]) + 1))


def check_companion(storage: LocalStorage, snapshot: Snapshot) -> None:
    """Raise IntegrityError unless the snapshot's companion file stands beside it and agrees."""
    name = _companion_path(snapshot.number)
    if storage.read(name) != _companion(snapshot):
        raise IntegrityError(f"{storage}/{name}: does not agree with snapshot {snapshot.number}")


def _write_companion(storage: LocalStorage, snapshot: Snapshot) -> None:
    # Two files vouch for each other: without the second, a deleted newest snapshot would leave no trace.
    storage.create(_companion_path(snapshot.number), _companion(snapshot))


def _companion(snapshot: Snapshot) -> bytes:
    return f"{snapshot.digest}  {snapshot.number}.json\n".encode()


def _sha256(storage: LocalStorage, name: str) -> str:
    return hashlib.sha256(storage.read(name)).hexdigest()


def _commit_path(unit: str) -> str:
    return f"commits/{unit}.json"


def _snapshot_path(number: int) -> str:
    return f"snapshots/{number}.json"


def _companion_path(number: int) -> str:
    return f"snapshots/{number}.sha256"
