"""Which parts count: create-if-absent commits. No locks; the first to commit a unit wins."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cache.documents import digest, seal, unseal
from cache.errors import IntegrityError, StoreError
from cache.parts.layout import PartCounts
from cache.parts.part import PartPlace
from cache.rows.spec import StoreSpec
from cache.storage.base import Storage

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
    """The claim that the part at `place` holds `unit`, with a seal for each of its files (paths inside the part)."""

    unit: str
    fingerprint: str
    place: PartPlace
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
        place = body["place"]
        return cls(
            **{
                **body,
                "place": PartPlace(**{**place, "counts": PartCounts(**place["counts"])}),
                "examples": tuple(CommittedExample(*fields) for fields in body["examples"]),
                "files": {name: FileSeal(**fields) for name, fields in body["files"].items()},
            }
        )

    def to_document(self) -> dict[str, Any]:
        rows = [[example.key, example.origin, example.tokens, example.rows] for example in self.examples]
        return {**asdict(self), "examples": rows}


def unit_name(keys: Sequence[str]) -> str:
    """A unit is named after its examples, so that drivers which plan the same work race for the same name."""
    return digest(list(keys))[:24]


def create_store(storage: Storage, spec: StoreSpec) -> None:
    """Claim an empty store for `spec`, or check that it already has that fingerprint."""
    if not storage.create(SPEC, seal(spec.to_document())):
        read_spec(storage).require_same(spec, str(storage))


def read_spec(storage: Storage) -> StoreSpec:
    if storage.size(SPEC) is None:
        if storage.names("commits") or storage.names("snapshots"):
            raise IntegrityError(f"{storage}/{SPEC}: missing")
        raise StoreError(f"{storage}: not a store (no {SPEC}); run 'logitbank capture' to make one")
    return StoreSpec.from_document(unseal(storage.read(SPEC), f"{storage}/{SPEC}"), f"{storage}/{SPEC}")


def publish(storage: Storage, commit: Commit) -> bool:
    """Make `commit` count. False where another writer's commit of the same unit already does."""
    return storage.create(commit_path(commit.unit), seal(commit.to_document()))


def committed_units(storage: Storage) -> list[str]:
    return [name.removesuffix(".json") for name in storage.names("commits", ".json")]


def read_commit(storage: Storage, unit: str, sha256: str | None = None) -> tuple[Commit, str]:
    """One commit and the SHA-256 of its file. Raises IntegrityError where it is altered, or not the one asked for."""
    name = commit_path(unit)
    data = storage.read(name)
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256:
        raise IntegrityError(f"{storage}/{name}: not the file that the snapshot lists")
    try:
        commit = Commit.from_document(unseal(data, f"{storage}/{name}"))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise IntegrityError(f"{storage}/{name}: is not a commit of this format: {error!r}") from error
    if commit.unit != unit or not re.fullmatch(f"parts/{unit}/[0-9a-f]{{32}}\\.zarr", commit.place.path):
        raise IntegrityError(f"{storage}/{name}: names unit {commit.unit} at {commit.place.path}, not its own")
    return commit, found


def quarantine(storage: Storage, key: str, example_id: str, reason: str) -> bool:
    """Set an example aside, with the reason, so that it is not forgotten. False where it already is."""
    return storage.create(f"quarantine/{key}.json", seal({"key": key, "id": example_id, "reason": reason}))


def quarantined(storage: Storage) -> list[str]:
    """Keys set aside so far."""
    return [name.removesuffix(".json") for name in storage.names("quarantine", ".json")]


def commit_path(unit: str) -> str:
    return f"commits/{unit}.json"
