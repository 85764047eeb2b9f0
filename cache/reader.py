"""LogitStore: random access to the records of a store, pinned to one snapshot."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cache.commits import (
    Commit,
    CommittedExample,
    committed_units,
    latest_snapshot,
    quarantined,
    read_commit,
    read_snapshot,
    read_spec,
)
from cache.errors import IntegrityError, StoreError
from cache.part import PartData, read_arrays
from cache.record import Record
from cache.spec import StoreSpec
from cache.storage import LocalStorage

CACHE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """What a store holds, summed over its commits; `bytes` are those of all files of its parts.

    retained_mass: mean probability inside the stored entries; kl: mean KL of quantisation in nats.
    """

    uri: str
    spec: StoreSpec
    snapshot: int | None
    units: int
    examples: int
    origins: dict[str, int]
    quarantined: int
    tokens: int
    rows: int
    bytes: int
    retained_mass: float
    max_abs_error: float
    kl: float

    @property
    def bytes_per_token(self) -> float:
        """Bytes of the store for each token that carries a target."""
        return self.bytes / self.rows if self.rows else float("nan")


class LogitStore:
    """A sequence of Records. Open it with LogitStore.open.

    Holds at most `cache_bytes` of decoded parts and one more. Not for sharing between threads; each worker process
    opens its own.
    """

    def __init__(
        self, storage: LocalStorage, spec: StoreSpec, commits: Sequence[Commit], snapshot: int | None, cache_bytes: int
    ) -> None:
        self.storage = storage
        self.spec = spec
        self.snapshot = snapshot
        self.commits = tuple(commits)
        self._cache_bytes = cache_bytes
        self._parts: OrderedDict[int, PartData] = OrderedDict()
        self._places: list[tuple[int, int]] = []
        self.examples: list[CommittedExample] = []
        seen: set[str] = set()
        for part, commit in enumerate(self.commits):
            for place, example in enumerate(commit.examples):
                if example.key not in seen:
                    seen.add(example.key)
                    self._places.append((part, place))
                    self.examples.append(example)

    @classmethod
    def open(
        cls,
        uri: str,
        snapshot: int | None = None,
        expect: StoreSpec | None = None,
        unpinned: bool = False,
        cache_bytes: int = CACHE_BYTES,
    ) -> "LogitStore":
        """Open a store at a snapshot (the newest by default), or with `unpinned` at whatever is committed now.

        Raises StoreError where there is no store or snapshot, SpecMismatchError where its fingerprint is not that of
        `expect`, and IntegrityError naming any commit that is missing or altered.
        """
        storage = LocalStorage(uri)
        spec = read_spec(storage)
        if expect is not None:
            spec.require_same(expect, uri)
        if unpinned:
            return cls(storage, spec, [read_commit(storage, u) for u in committed_units(storage)], None, cache_bytes)
        number = latest_snapshot(storage) if snapshot is None else snapshot
        if number == 0 and snapshot is None:
            raise StoreError(f"{uri}: no snapshot yet; let the capture finish, or run 'logitbank snapshot {uri}'")
        pinned = read_snapshot(storage, number)
        commits = [read_commit(storage, unit, sha256) for unit, sha256 in sorted(pinned.commits.items())]
        for commit in commits:
            if commit.fingerprint != spec.fingerprint:
                raise IntegrityError(f"{uri}: commit {commit.unit} belongs to another spec")
        return cls(storage, spec, commits, number, cache_bytes)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, i: int) -> Record:
        part, place = self._places[i]
        return self._part(part).record(place)

    def __iter__(self) -> Iterator[Record]:
        return (self[i] for i in range(len(self)))

    def find(self, key: str) -> int:
        """Index of the example whose key starts with `key`."""
        found = [i for i, example in enumerate(self.examples) if example.key.startswith(key)]
        if len(found) != 1:
            raise StoreError(f"{self.storage}: {len(found)} examples have a key that starts with {key!r}; need one")
        return found[0]

    def info(self) -> StoreInfo:
        """Totals, from the commits alone."""
        rows = sum(commit.rows for commit in self.commits)

        def mean(values: Iterator[float]) -> float:
            return sum(values) / rows if rows else float("nan")

        origins: dict[str, int] = {}
        for example in self.examples:
            kind = example.origin.partition("/")[0]
            origins[kind] = origins.get(kind, 0) + 1
        return StoreInfo(
            uri=str(self.storage),
            spec=self.spec,
            snapshot=self.snapshot,
            units=len(self.commits),
            examples=len(self),
            origins=origins,
            quarantined=len(set(quarantined(self.storage)) - {example.key for example in self.examples}),
            tokens=sum(example.tokens for commit in self.commits for example in commit.examples),
            rows=rows,
            bytes=sum(commit.size for commit in self.commits),
            retained_mass=mean(commit.retained_mass * commit.rows for commit in self.commits),
            max_abs_error=max((commit.max_abs_error for commit in self.commits), default=0.0),
            kl=mean(commit.kl * commit.rows for commit in self.commits),
        )

    def _part(self, number: int) -> PartData:
        if number in self._parts:
            self._parts.move_to_end(number)
            return self._parts[number]
        commit = self.commits[number]
        check_files(self.storage, commit)
        part = read_arrays(self.storage.path(commit.part))
        if len(part) != len(commit.examples):
            raise IntegrityError(
                f"{self.storage}/{commit.part}: holds {len(part)} examples, not {len(commit.examples)}"
            )
        self._parts[number] = part
        while len(self._parts) > 1 and sum(held.nbytes for held in self._parts.values()) > self._cache_bytes:
            self._parts.popitem(last=False)
        return part


def check_files(storage: LocalStorage, commit: Commit) -> None:
    """Raise IntegrityError unless every file of a part exists at its length: Zarr reads an absent one as fill.

    What chunk checksums do not cover is hashed as well.
    """
    for name, file in commit.files.items():
        size = storage.size(name)
        if size is None:
            raise IntegrityError(f"{storage}/{name}: missing")
        if size != file.size:
            raise IntegrityError(f"{storage}/{name}: {size} bytes long, committed with {file.size}")
        # Chunks carry checksums of their own; what describes them does not.
        if name.endswith("zarr.json") and hashlib.sha256(storage.read(name)).hexdigest() != file.sha256:
            raise IntegrityError(f"{storage}/{name}: altered since it was committed")
