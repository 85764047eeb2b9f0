"""Commits: small documents that say which parts count. No locks are needed: the first commit of a unit wins."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from itertools import islice
from typing import Any, NamedTuple

from cache.errors import IntegrityError, StoreError
from cache.json_documents import decode_document, digest, encode_document, known_fields
from cache.parts.layout import PROFILES, Profile
from cache.parts.part import PartInfo
from cache.rows.spec import StoreSpec
from cache.storage.base import Storage
from cache.storage.local import LocalStorage
from cache.store.root_group import create_root_group

SPEC = "spec.json"
# Requests at a time to a service, and commits that are in memory before they are parsed.
READERS, BATCH = 16, 256
_KEYS = re.compile("(?:[0-9a-f]{32},)*")
_HASH, _DIGEST = re.compile("[0-9a-f]{64}"), re.compile("(?:[0-9a-f]{32})?")
_MEASURES = ("retained_mass", "max_abs_error", "kl")
_ATTEMPT = re.compile(r"[0-9a-f]{32}\.zarr\.zip")


class CommittedExample(NamedTuple):
    """Facts about an example that need no reading of its part. rows: number of its tokens that carry a target."""

    key: str
    origin: str
    tokens: int
    rows: int


@dataclass(frozen=True, slots=True)
class Commit:
    """The statement that `part` contains `unit`.

    sha256: of the file of the part. codebook: digest of the part's codebook, "" if codes are ids. entries: number of
    stored entries. retained_mass: mean probability of the exact entries of a row.
    max_abs_error, kl: quantisation error in nats, the largest of a log-probability and the mean of a row.
    """

    unit: str
    fingerprint: str
    part: PartInfo
    sha256: str
    profile: Profile
    codebook: str
    examples: tuple[CommittedExample, ...]
    entries: int
    retained_mass: float
    max_abs_error: float
    kl: float

    @property
    def rows(self) -> int:
        """Number of tokens that carry a target."""
        return sum(example.rows for example in self.examples)

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return sum(example.tokens for example in self.examples)

    def to_document(self) -> dict[str, Any]:
        """Fields for JSON, by the names of the store format. Facts about examples are columns."""
        document = {item.name: getattr(self, item.name) for item in fields(self)}
        document["part"] = asdict(self.part)
        del document["sha256"]  # the document's own checksum has this name
        origins = {origin: i for i, origin in enumerate(sorted({example.origin for example in self.examples}))}
        columns: dict[str, list[Any]] = {
            "key": [example.key for example in self.examples],
            "origin": [origins[example.origin] for example in self.examples],
            "tokens": [example.tokens for example in self.examples],
            "rows": [example.rows for example in self.examples],
        }
        counts = {"examples": len(self.examples), "tokens": self.tokens, "rows": self.rows, "entries": self.entries}
        del document["entries"]
        return {
            **document,
            "sha256_of_part": self.sha256,
            "counts": counts,
            "origins": list(origins),
            "examples": columns,
        }

    @classmethod
    def from_document(cls, body: dict[str, Any]) -> "Commit":
        """The commit that to_document described. Raises KeyError, TypeError or ValueError if it is none."""
        part = PartInfo(**known_fields(body["part"], PartInfo))
        columns, origins = body["examples"], body["origins"]
        _require_values(body, part)
        names = (origins[number] for number in columns["origin"])
        rows = zip(columns["key"], names, columns["tokens"], columns["rows"], strict=True)
        own = {
            "part": part,
            "examples": tuple(map(CommittedExample._make, rows)),
            "sha256": body["sha256_of_part"],
            "entries": body["counts"]["entries"],
        }
        return cls(**{**known_fields(body, cls), **own})


def unit_name(keys: Sequence[str]) -> str:
    """Name a unit after the keys of its examples, so that drivers with the same plan compete for the same name."""
    return digest(list(keys))[:24]


def create_store(storage: Storage, spec: StoreSpec) -> None:
    """Claim an empty store for `spec`. Raises SpecMismatchError if the store has another fingerprint already."""
    if not storage.create(SPEC, encode_document(spec.to_document())):
        read_spec(storage).require_same(spec, str(storage))
    create_root_group(storage, spec.fingerprint)


def read_spec(storage: Storage) -> StoreSpec:
    """The spec of a store. Raises StoreError if there is no store, IntegrityError if its spec is missing or altered."""
    try:
        data = storage.read(SPEC)
    except IntegrityError:
        if storage.size(SPEC) is not None or storage.names("commits") or storage.names("snapshots"):
            raise
        raise StoreError(f"{storage}: not a store (no {SPEC}); run 'logitbank capture' to make one") from None
    return StoreSpec.from_document(decode_document(data, f"{storage}/{SPEC}"), f"{storage}/{SPEC}")


def publish_commit(storage: Storage, commit: Commit) -> bool:
    """Make a commit count. Returns False if another writer has committed the same unit before."""
    return storage.create(commit_path(commit.unit), encode_document(commit.to_document()))


def committed_units(storage: Storage) -> list[str]:
    """Sorted names of all committed units."""
    return [name[: -len(".json")] for name in storage.names("commits", ".json")]  # there may be a million


def read_commit(storage: Storage, unit: str, sha256: str | None = None) -> tuple[Commit, str]:
    """A commit and the SHA-256 of its file.

    sha256: the hash that the file must have, if known. Raises IntegrityError if the file is missing, altered or another
    one.
    """
    return _parse_commit(storage, unit, storage.read(commit_path(unit)), sha256)


def read_commits(storage: Storage, units: Iterable[str]) -> Iterator[tuple[Commit, str]]:
    """Commits, and the SHA-256 of their files, in the order of `units`. Several are read at a time from a service."""
    if isinstance(storage, LocalStorage):
        yield from (read_commit(storage, unit) for unit in units)
        return
    names = iter(units)
    with ThreadPoolExecutor(READERS, "commits") as pool:
        while batch := list(islice(names, BATCH)):
            for unit, data in zip(batch, pool.map(lambda unit: storage.read(commit_path(unit)), batch), strict=True):
                yield _parse_commit(storage, unit, data, None)


def _parse_commit(storage: Storage, unit: str, data: bytes, sha256: str | None) -> tuple[Commit, str]:
    name = commit_path(unit)
    file_hash = hashlib.sha256(data).hexdigest()
    if sha256 is not None and file_hash != sha256:
        raise IntegrityError(f"{storage}/{name}: not the file that the snapshot lists")
    try:
        commit = Commit.from_document(decode_document(data, f"{storage}/{name}"))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise IntegrityError(f"{storage}/{name}: is not a commit of this format: {error!r}") from error
    if commit.unit != unit or not _ATTEMPT.fullmatch(commit.part.path.removeprefix(f"parts/{unit}/")):
        raise IntegrityError(f"{storage}/{name}: names unit {commit.unit} at {commit.part.path}, not its own")
    return commit, file_hash


def _require_values(body: Mapping[str, Any], part: PartInfo) -> None:
    """Raise ValueError, with the field, for the first value that is not of its type or range.

    TypeError or KeyError if a value is of a wrong kind altogether, or missing.
    """
    columns, origins = body["examples"], body["origins"]
    checks = {
        "part": _are_numbers([part.tail, part.root, part.bytes], 1 << 62) and part.tail <= part.root < part.bytes,
        "part.crc32c": _are_numbers([part.crc32c], 1 << 32),
        "part.path": isinstance(part.path, str),
        "unit": isinstance(body["unit"], str),
        "sha256_of_part": _HASH.fullmatch(body["sha256_of_part"]),
        "codebook": _DIGEST.fullmatch(body["codebook"]),
        "counts.entries": _are_numbers([body["counts"]["entries"]], 1 << 62),
        "origins": isinstance(origins, list) and {*map(type, origins)} <= {str},
        "examples.key": _KEYS.fullmatch("".join(f"{key}," for key in columns["key"])),
        "examples.origin": _are_numbers(columns["origin"], len(origins)),
        "examples.tokens": _are_numbers(columns["tokens"], 1 << 32),
        "examples.rows": _are_numbers(columns["rows"], 1 << 32),
        **{name: type(body[name]) in (int, float) for name in _MEASURES},
    }
    if wrong := next((name for name, is_right in checks.items() if not is_right), None):
        raise ValueError(f"{wrong} has no value of a commit")
    if body["profile"] not in PROFILES:
        raise ValueError(f"profile {body['profile']!r} is not known; a newer logitbank wrote it")


def _are_numbers(values: list[Any], end: int) -> bool:
    """Whether these are whole numbers from 0 to below `end`."""
    return not values or ({*map(type, values)} == {int} and min(values) >= 0 and max(values) < end)


def remove_unused(storage: Storage, folder: str) -> None:
    """Remove files that no commit or claim refers to. If that fails they stay, as those of a killed writer do."""
    with suppress(StoreError):
        storage.remove_folder(folder)


def withdraw_if_incomplete(storage: Storage, name: str, files: Iterable[str]) -> None:
    """Remove the commit or claim `name`, which was just made, and raise StoreError, if files that it names are gone.

    A writer that was suspended for longer than the grace of a garbage collection loses its files to it.
    """
    absent = next((file for file in files if storage.size(file) is None), None)
    if absent is None:
        return
    storage.remove_folder(name)
    raise StoreError(
        f"{storage}/{absent}: removed before {name} was written, probably by garbage collection with a grace "
        f"shorter than this write took; {name} is withdrawn; run the job again"
    )


def part_path(unit: str, attempt: str) -> str:
    """Name of the file of a part. attempt: 32 hexadecimal digits, different for each writer."""
    return f"parts/{unit}/{attempt}.zarr.zip"


def commit_path(unit: str) -> str:
    """Name of the commit's file in the store."""
    return f"commits/{unit}.json"
