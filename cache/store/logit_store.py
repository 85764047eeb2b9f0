"""LogitStore: random access to the examples of a store, pinned to one snapshot."""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cache.errors import IntegrityError, StoreError
from cache.parts.layout import PART_ARRAYS
from cache.parts.part_reader import PartReader, Scratch
from cache.progress import Progress, no_progress
from cache.rows.codebook import Codebook
from cache.rows.codec import QuantisationError
from cache.rows.record import Record, Window
from cache.rows.spec import StoreSpec
from cache.storage.base import Storage
from cache.storage.open import open_storage
from cache.store.codebook_claim import open_codebook
from cache.store.commits import committed_units, quarantined, read_commit, read_spec
from cache.store.index import StoreIndex
from cache.store.snapshots import latest_snapshot, read_index, read_snapshot

# Bound on what is kept of opened parts: indexes and starts, some 16 bytes a chunk and an example.
PART_BYTES = 64 << 20
# Tokens that are decoded together, at most; at k = 64 about 0.6 KB each.
RUN_TOKENS = 1 << 14


@dataclass(frozen=True, slots=True, repr=False)
class StoreInfo:
    """What a store holds, summed over its units; `bytes` are those of all files of its parts.

    retained_mass: mean probability inside the exact entries; kl: mean KL of quantisation in nats.
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
    entries: int
    bytes: int
    retained_mass: float
    max_abs_error: float
    kl: float

    @property
    def bytes_per_token(self) -> float:
        """Bytes of the store for each token that carries a target."""
        return self.bytes / self.rows if self.rows else float("nan")

    def __repr__(self) -> str:
        spec, sampling = self.spec, self.spec.sampling
        written = (
            f"{sampling.samples} a prompt, temperature {sampling.temperature}, top-p {sampling.top_p}, "
            f"seed {sampling.seed}"
            if sampling
            else "none"
        )
        origins = ", ".join(f"{count:,} {origin}" for origin, count in sorted(self.origins.items()))
        snapshot = f"snapshot {self.snapshot}" if self.snapshot else "not pinned: no snapshot yet"
        rows = [
            ("store", f"{self.uri} ({snapshot})"),
            ("fingerprint", spec.fingerprint),
            ("teacher", f"{spec.teacher} ({spec.dtype}, {spec.weights[:23]})"),
            ("vocabulary", f"{spec.vocab_size:,} logits, {spec.tokenizer_size:,} ids of the tokenizer"),
            ("targets", str(spec.targets)),
            ("responses", f"written by the teacher: {written}"),
            *(
                (name, value)
                for name, value in (
                    ("service", spec.service),
                    ("adapter", spec.adapter[:23]),
                    ("quantization", spec.quantization),
                    ("asked by", str(spec.prompting or "")),
                    ("targets of", "prompts too" if spec.asked == "all" else ""),
                    ("too long", f"cut on the {spec.truncation}" if spec.truncation != "refuse" else ""),
                )
                if value
            ),
            ("units", f"{self.units:,}"),
            ("examples", f"{self.examples:,} ({origins}); {self.quarantined:,} in quarantine"),
            ("tokens", f"{self.tokens:,}, of which {self.rows:,} carry a target"),
            ("entries", f"{self.entries:,}, {self.entries / max(self.rows, 1):.1f} a target"),
            ("bytes", f"{self.bytes:,}"),
        ]
        if self.rows:
            rows += [
                ("bytes/token", f"{self.bytes_per_token:.1f} (all files of the parts, a token with a target)"),
                ("retained mass", f"{self.retained_mass:.4f}"),
                ("quantisation", f"KL {self.kl:.1e} nats, at most {self.max_abs_error:.3f} nats a value"),
            ]
        return "\n".join(f"{name:<14} {value}" for name, value in rows)


class LogitStore:
    """A sequence of Records. Open it with LogitStore.open.

    Nothing decoded is kept: beside the index (about 35 bytes an example and 450 a unit) and the codebook, a store holds
    the indexes of the parts it read last, at most PART_BYTES. Safe to share between threads, across fork, and to
    pickle.
    """

    def __init__(
        self, storage: Storage, spec: StoreSpec, index: StoreIndex, snapshot: int | None, quarantine: frozenset[str]
    ) -> None:
        self.storage = storage
        self.spec = spec
        self.snapshot = snapshot
        self.index = index
        self._quarantine = quarantine
        self._unlocked()

    def _unlocked(self) -> None:
        self._parts: OrderedDict[int, PartReader] = OrderedDict()
        self._held_bytes = 0
        self._scratch = Scratch()
        self._codebooks: dict[str, Codebook] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> tuple[object, ...]:
        return (self.storage, self.spec, self.index, self.snapshot, self._quarantine)

    def __setstate__(self, state: tuple[object, ...]) -> None:
        self.storage, self.spec, self.index, self.snapshot, self._quarantine = state  # type: ignore[assignment]
        self._unlocked()

    @classmethod
    def open(
        cls,
        uri: str,
        snapshot: int | None = None,
        expect: StoreSpec | None = None,
        unpinned: bool = False,
    ) -> "LogitStore":
        """Open a store at a snapshot (the newest by default), or with `unpinned` at whatever is committed now.

        Raises StoreError where there is no store or snapshot, SpecMismatchError where its fingerprint is not that of
        `expect`, and IntegrityError naming any file that is missing or altered.
        """
        storage = open_storage(uri)
        spec = read_spec(storage)
        if expect is not None:
            spec.require_same(expect, uri)
        if unpinned:
            commits = [read_commit(storage, unit) for unit in committed_units(storage)]
            return cls(storage, spec, StoreIndex.from_commits(commits), None, frozenset(quarantined(storage)))
        number = latest_snapshot(storage) if snapshot is None else snapshot
        if number == 0 and snapshot is None:
            raise StoreError(f"{uri}: no snapshot yet; let the capture finish, or run 'logitbank snapshot {uri}'")
        pinned = read_snapshot(storage, number)
        if pinned.fingerprint != spec.fingerprint:
            raise IntegrityError(f"{uri}: snapshot {number} belongs to another spec")
        return cls(storage, spec, read_index(storage, pinned), number, frozenset(pinned.quarantine))

    def __len__(self) -> int:
        return len(self.index.key)

    def __getitem__(self, i: int) -> Record:
        if not -len(self) <= i < len(self):
            raise IndexError(f"example {i} of {len(self)}")
        part, place = self._part(int(self.index.unit_of[i])), int(self.index.place[i])
        return part.record(place)

    def __iter__(self) -> Iterator[Record]:
        return (self[i] for i in range(len(self)))

    @property
    def tokens(self) -> npt.NDArray[np.uint32]:
        """Tokens of each example, uint32 [examples]."""
        return self.index.tokens

    @property
    def rows(self) -> npt.NDArray[np.uint32]:
        """Tokens with a target of each example, uint32 [examples]."""
        return self.index.rows

    def has_origin(self, kinds: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Which examples are of one of the kinds, such as "scored" or "generated"; bool [examples]."""
        chosen = np.array([name.partition("/")[0] in kinds for name in self.index.origin_names], bool)
        return chosen[self.index.origin] if len(chosen) else np.zeros(len(self), bool)

    def key(self, i: int) -> str:
        """Key of an example, 32 hexadecimal digits."""
        return str(self.index.key[i].tobytes().hex())

    def find(self, key: str) -> int:
        """Index of the example whose key starts with `key`."""
        found = np.flatnonzero(self._starts_with(key.lower())) if key else np.arange(len(self))
        if len(found) != 1:
            raise StoreError(f"{self.storage}: {len(found)} examples have a key that starts with {key!r}; need one")
        return int(found[0])

    def window(self, i: int, start: int = 0, stop: int | None = None) -> Window:
        """Tokens start:stop of an example, without its texts and without reading the rest of it."""
        return self.windows([(i, start, stop)])[0]

    def read(self, examples: Sequence[int]) -> list[Window]:
        """All tokens of each of the examples, in the order asked for."""
        return self.windows([(i, 0, None) for i in examples])

    def windows(self, wanted: Sequence[tuple[int, int, int | None]]) -> list[Window]:
        """Tokens start:stop of example i for each (i, start, stop), in the order asked for.

        Neighbours are decoded together, whatever the order they are asked in: sorted or nearly sorted batches are the
        fastest. Arrays of one result may be views of a larger run of at most RUN_TOKENS tokens.
        """
        places = []
        for position, (i, start, end) in enumerate(wanted):
            if not 0 <= i < len(self):
                raise StoreError(f"{self.storage}: no example {i}; it has {len(self)}")
            length = int(self.index.tokens[i])
            stop = length if end is None else end
            if not 0 <= start <= stop <= length:
                raise StoreError(f"{self.storage}: tokens {start}:{stop} of an example of {length}")
            unit = int(self.index.unit_of[i])
            first = self._part(unit).token_starts[int(self.index.place[i])]
            places.append((unit, first + start, first + stop, position))
        places.sort()
        results: list[Window | None] = [None] * len(wanted)
        begin = 0
        while begin < len(places):
            unit, run_start, run_stop, _ = places[begin]
            end = begin + 1
            while (
                end < len(places)
                and places[end][0] == unit
                and places[end][1] <= run_stop
                and places[end][2] - run_start <= RUN_TOKENS
            ):
                run_stop = max(run_stop, places[end][2])
                end += 1
            run = self._part(unit).window(run_start, run_stop)
            for _, start, stop, position in places[begin:end]:
                whole = end - begin == 1
                results[position] = run if whole else run.part(start - run_start, stop - run_start)
            begin = end
        return results  # type: ignore[return-value]

    def check(self, progress: Progress = no_progress) -> None:
        """Decode every chunk of every part. Raises IntegrityError for the first that is not as it was written."""
        for unit in range(len(self.index.unit)):
            self._part(unit).check_all()
            progress(unit + 1, len(self.index.unit))

    def info(self) -> StoreInfo:
        """Totals, from the index alone."""
        index = self.index
        rows = index.totals[:, 2]

        def mean(column: int) -> float:
            return float((index.quality[:, column] * rows).sum() / rows.sum()) if rows.sum() else float("nan")

        origins: dict[str, int] = {}
        for name, count in zip(index.origin_names, np.bincount(index.origin), strict=False):
            kind = name.partition("/")[0]
            origins[kind] = origins.get(kind, 0) + int(count)
        held = {self.key(int(i)) for i in range(len(self))} if self._quarantine else set()
        return StoreInfo(
            uri=str(self.storage),
            spec=self.spec,
            snapshot=self.snapshot,
            units=len(index.unit),
            examples=len(self),
            origins=origins,
            quarantined=len(self._quarantine - held),
            tokens=int(index.tokens.sum(dtype=np.int64)),
            rows=int(rows.sum()),
            entries=int(index.totals[:, 1].sum()),
            bytes=int(index.totals[:, 0].sum()),
            retained_mass=mean(0),
            max_abs_error=float(index.quality[:, 1].max(initial=0.0)),
            kl=mean(2),
        )

    def rounding(self, examples: Sequence[int]) -> QuantisationError:
        """What rounding cost the units that hold these examples."""
        units = np.unique(self.index.unit_of[list(examples)])
        rows, quality = self.index.totals[units, 2], self.index.quality[units]
        kl = float((quality[:, 2] * rows).sum() / max(rows.sum(), 1))
        return QuantisationError(float(quality[:, 1].max(initial=0.0)), kl)

    def bytes_by_array(self) -> dict[str, int]:
        """Bytes of the arrays' shards over all parts, by the array's name."""
        sizes = np.maximum(self.index.sizes, 0).sum(axis=0)
        return {name: int(size) for name, size in zip(PART_ARRAYS, sizes, strict=True) if size}

    def _starts_with(self, key: str) -> npt.NDArray[np.bool_]:
        try:
            head = np.frombuffer(bytes.fromhex(key[: len(key) // 2 * 2]), np.uint8)
            half = int(key[-1], 16) if len(key) % 2 else None
        except ValueError:
            return np.zeros(len(self), bool)
        if len(key) > 32:
            return np.zeros(len(self), bool)
        same = np.asarray((self.index.key[:, : len(head)] == head).all(axis=1))
        return same if half is None else np.asarray(same & (self.index.key[:, len(head)] >> 4 == half))

    def _part(self, unit: int) -> PartReader:
        with self._lock:
            part = self._parts.get(unit)
            if part is not None:
                self._parts.move_to_end(unit)
                return part
        place = self.index.part_place(unit)
        part = PartReader(self.storage, place, self.spec.targets, self._codebook(place.codebook), self._scratch)
        with self._lock:
            if unit not in self._parts:
                self._parts[unit] = part
                self._held_bytes += part.nbytes
            while len(self._parts) > 1 and self._held_bytes > PART_BYTES:
                self._held_bytes -= self._parts.popitem(last=False)[1].nbytes
        return part

    def _codebook(self, digest: str) -> Codebook:
        with self._lock:
            if digest not in self._codebooks:
                self._codebooks[digest] = open_codebook(self.storage, digest, self.spec.vocab_size)
            return self._codebooks[digest]
