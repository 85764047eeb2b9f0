"""LogitStore: random access to the examples of a store, pinned to one snapshot."""

from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import InputError, IntegrityError, StoreError
from cache.examples.example import Example
from cache.parts.part_reader import PartReader, Scratch
from cache.progress import Progress, no_progress
from cache.rows.codebook import Codebook
from cache.rows.codec import QuantisationError
from cache.rows.record import Window
from cache.rows.spec import StoreSpec
from cache.storage.base import Storage
from cache.storage.fork_safe_lock import ForkSafeLock
from cache.storage.local_copies import CopyFolder, LocalCopies
from cache.storage.open import open_storage
from cache.store.claims.codebook_claim import open_codebook
from cache.store.claims.tokenizer_files import open_tokenizer
from cache.store.commits import read_spec
from cache.store.index import StoreIndex
from cache.store.quarantine.entries import document_path, read_all, read_entry, waiting_keys
from cache.store.quarantine.reasons import count_reasons
from cache.store.reading.sequence import RecordSequence
from cache.store.reading.union import StoreUnion
from cache.store.segments.keys import keys_of_hex
from cache.store.snapshot_reading import current_index, open_snapshot, with_newest
from cache.store.store_info import StoreInfo, summarize

# Memory for the indexes and starts of opened parts: about 16 bytes per chunk and per example.
MAX_PART_BYTES = 64 << 20
# Tokens that are decoded together, at most. At k = 64 a decoded token takes about 0.6 KB.
MAX_RUN_TOKENS = 1 << 14
# Tokens between two of them that are decoded too: those of one chunk, which is decoded as a whole in any case.
MAX_GAP_TOKENS = 512
# Stands for the reason of an entry of an older snapshot that was removed since, so that its example is asked for again.
CLEARED = "cleared after this snapshot, to be tried again"
DAMAGED = "its document is damaged; see 'logitbank verify'"


class LogitStore(RecordSequence):
    """The examples of a snapshot, see RecordSequence. Open it with LogitStore.open, and close it or use it in `with`.

    Decoded rows are never cached. The store keeps the index (about 35 bytes an example and 450 a unit), the codebook,
    and the indexes of the parts that were read last, at most MAX_PART_BYTES. It is safe to share between threads and
    across fork, and to pickle.
    """

    def __init__(
        self,
        storage: Storage,
        spec: StoreSpec,
        index: StoreIndex,
        snapshot: int | None,
        quarantine: frozenset[str],
        copies: CopyFolder | None = None,
    ) -> None:
        self.storage: Storage = storage
        self._copy_folder = copies
        self.spec = spec
        self.snapshot = snapshot
        self.index = index
        self._quarantine = quarantine
        self._reset_cache()

    def _reset_cache(self) -> None:
        self._parts: OrderedDict[int, PartReader] = OrderedDict()
        self._part_bytes = 0
        self._scratch = Scratch()
        self._codebooks: dict[str, Codebook] = {}
        self._lock = ForkSafeLock()
        self._copies = None if self._copy_folder is None else LocalCopies(self.storage, self._copy_folder)

    def __getstate__(self) -> tuple[object, ...]:
        return (self.storage, self.spec, self.index, self.snapshot, self._quarantine, self._copy_folder)

    def __setstate__(self, state: tuple[object, ...]) -> None:
        self.storage, self.spec, self.index, self.snapshot, self._quarantine, self._copy_folder = state  # type: ignore[assignment]
        self._reset_cache()

    @classmethod
    def open(
        cls,
        uri: str | Path,
        snapshot: int | None = None,
        expect: StoreSpec | None = None,
        unpinned: bool = False,
        copies: CopyFolder | None = None,
    ) -> "LogitStore":
        """Open a store at a snapshot (default: the newest), or with `unpinned` at everything that is committed now.

        expect: the spec that the store must have. copies: where parts that are read are copied to, see LocalCopies.
        Raises StoreError if there is no such store or snapshot,
        SpecMismatchError if the fingerprint is not that of `expect`, and IntegrityError, with the name of the file, if
        a file is missing or altered. A lost index or snapshot document is made again from the commits, in memory: the
        store may be one that only others may write.
        """
        if snapshot is not None and (isinstance(snapshot, bool) or not isinstance(snapshot, int | np.integer)):
            raise InputError(f"snapshot = {snapshot!r}: must be the number of a snapshot, such as 3")
        storage = open_storage(uri)
        spec = read_spec(storage)
        if expect is not None:
            if not isinstance(expect, StoreSpec):
                raise InputError(f"expect = {expect!r}: must be a StoreSpec, such as the `spec` of another store")
            spec.require_same(expect, str(uri))
        if unpinned:
            index = current_index(storage, spec.fingerprint)
            return cls(storage, spec, index, None, frozenset(waiting_keys(storage)), copies)

        def open_number(number: int) -> "LogitStore":
            if number == 0 and snapshot is None:
                raise StoreError(f"{uri}: no snapshot yet; let what fills it finish, or run 'logitbank snapshot {uri}'")
            pinned, index = open_snapshot(storage, number)
            if pinned.fingerprint != spec.fingerprint:
                raise IntegrityError(f"{uri}: snapshot {number} belongs to another spec")
            return cls(storage, spec, index, number, frozenset(pinned.quarantine), copies)

        return with_newest(storage, open_number) if snapshot is None else open_number(snapshot)

    @staticmethod
    def union(stores: "Sequence[RecordSequence | str | Path]") -> StoreUnion:
        """Several stores as one sequence, without a copy. An address is opened at its newest snapshot.

        Raises SpecMismatchError, with the field, unless they have the same tokenizer, vocabulary and form of targets.
        """
        if isinstance(stores, str | Path):
            raise InputError(f"stores = {str(stores)!r}: a union needs a list of stores; give [{str(stores)!r}]")
        return StoreUnion([s if isinstance(s, RecordSequence) else LogitStore.open(s) for s in stores])

    def refresh(self) -> "LogitStore":
        """The store at its newest snapshot, which may be this one. This store stays as it is, and both may be used.

        Examples keep their numbers: those of this store come first, in their order, unless examples were forgotten
        since. Open files, connections and codebooks are shared. Raises StoreError as `open` does.
        """
        newest = LogitStore.open(str(self.storage))
        newest.storage, newest._copy_folder, newest._copies = self.storage, self._copy_folder, self._copies
        with self._lock:
            newest._codebooks |= self._codebooks
        return newest

    def load_tokenizer(self) -> Any:
        """Load the tokenizer with which the store was captured (transformers.PreTrainedTokenizerBase).

        It is in the store; a store without one needs that of its teacher. Raises InputError if there is neither.
        """
        return open_tokenizer(self.storage, self.spec)

    def close(self) -> None:
        """Close all files and free the cached indexes of parts. The store opens them again if it is read later."""
        with self._lock:
            self._parts.clear()
            self._part_bytes = 0
            self._codebooks.clear()
            self._scratch = Scratch()
        if self._copies is not None:
            self._copies.close()
        self.storage.close()

    def __enter__(self) -> "LogitStore":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        snapshot = f"snapshot {self.snapshot}" if self.snapshot else "not pinned"
        rows = int(self.index.totals[:, 2].sum())
        size = f"{int(self.index.totals[:, 0].sum()) / rows:.1f} bytes/token" if rows else "no targets"
        return f"LogitStore({str(self.storage)!r}, {snapshot}, {len(self):,} examples, {self.spec.targets}, {size})"

    def __len__(self) -> int:
        return len(self.index)

    @property
    def tokens(self) -> npt.NDArray[np.uint32]:
        return self.index.tokens

    @property
    def rows(self) -> npt.NDArray[np.uint32]:
        return self.index.rows

    @property
    def keys(self) -> npt.NDArray[np.uint8]:
        return self.index.key

    @property
    def origins(self) -> list[str]:
        return list(self.index.origin_names)

    def has_origin(self, kinds: Sequence[str]) -> npt.NDArray[np.bool_]:
        matches = np.array([not {name, name.partition("/")[0]}.isdisjoint(kinds) for name in self.origins], bool)
        return matches[self.index.origin] if len(matches) else np.zeros(len(self), bool)

    def windows(self, requests: Sequence[tuple[int, int, int | None]]) -> list[Window]:
        """Tokens start:stop of example i for each (i, start, stop), in the requested order. Negative i is allowed.

        Neighbours in the store are decoded together, in whatever order they are requested, also if a few others lie
        between them. Sorted or nearly sorted batches are the fastest. Arrays of a result may be views of a longer run
        of at most MAX_RUN_TOKENS tokens.
        Raises StoreError if an example or a token is out of range.
        """
        # (unit, first token, end, position in the result): sorted, neighbours in a part follow one another.
        starts_of: dict[int, list[int]] = {}
        spans = sorted((*self._locate(starts_of, *request), position) for position, request in enumerate(requests))
        results: list[Window | None] = [None] * len(requests)
        begin = 0
        while begin < len(spans):
            unit, run_start, run_stop, _ = spans[begin]
            end = begin + 1
            while (
                end < len(spans)
                and spans[end][0] == unit
                and spans[end][1] <= run_stop + MAX_GAP_TOKENS
                and spans[end][2] - run_start <= MAX_RUN_TOKENS
            ):
                run_stop = max(run_stop, spans[end][2])
                end += 1
            run = self._part(unit).window(run_start, run_stop)
            for _, start, stop, position in spans[begin:end]:
                is_whole_run = end - begin == 1
                results[position] = run if is_whole_run else run.part(start - run_start, stop - run_start)
            begin = end
        return results  # type: ignore[return-value]

    def copy_ahead(self) -> None:
        """Copy all parts to the folder of `copies` in the background, if there is one and all of them fit."""
        if self._copies is not None:
            infos = map(self.index.part_info, range(len(self.index.unit)))
            self._copies.copy_ahead({info.path: info.bytes for info in infos})

    def check(self, progress: Progress = no_progress) -> None:
        """Decode every chunk of every part. Raises IntegrityError at the first chunk that is damaged."""
        for unit in range(len(self.index.unit)):
            self._part(unit).check_all()
            progress(unit + 1, len(self.index.unit))

    def info(self) -> StoreInfo:
        """Totals of the store, computed from the index, and the reasons of the quarantine from its documents."""
        keys = sorted(self._quarantine)
        is_stored = self.index.contains(keys_of_hex(keys))
        waiting = [key for key, stored in zip(keys, is_stored.tolist(), strict=True) if not stored]
        reasons = count_reasons(read_all(self._reason, waiting))
        return summarize(str(self.storage), self.spec, self.snapshot, self.index, reasons, self.storage.total_bytes())

    def rounding(self, examples: Sequence[int]) -> QuantisationError:
        """Quantisation error of the units that contain these examples."""
        units = np.unique(self.index.unit_of[list(examples)])
        rows, quality = self.index.totals[units, 2], self.index.quality[units]
        kl = float((quality[:, 2] * rows).sum() / max(rows.sum(), 1))
        return QuantisationError(float(quality[:, 1].max(initial=0.0)), kl)

    def bytes_by_array(self) -> dict[str, int]:
        """Bytes of the shards of each array, summed over all parts, by name of the array. Opens every part."""
        sizes: Counter[str] = Counter()
        for unit in range(len(self.index.unit)):
            sizes.update(self._part(unit).sizes)
        return dict(sizes)

    def _reason(self, key: str) -> str:
        """Why an example is in quarantine."""
        try:
            return read_entry(self.storage, key).reason
        except IntegrityError:
            return DAMAGED if self.storage.size(document_path(key)) is not None else CLEARED

    def _locate(self, starts_of: dict[int, list[int]], i: int, start: int, stop: int | None) -> tuple[int, int, int]:
        """Unit of an example, and its tokens start:stop as tokens of the part.

        starts_of: first token of each example of the units that were looked up before.
        """
        i = self._index(i)
        unit, place = int(self.index.unit_of[i]), int(self.index.position[i])
        starts = starts_of.get(unit)
        if starts is None:
            starts = starts_of[unit] = self._part(unit).token_starts
        first, last = starts[place], starts[place + 1]
        if start == 0 and stop is None:
            return unit, first, last
        length = last - first
        first_token, end = start, length if stop is None else stop
        first_token += length if first_token < 0 else 0
        end += length if end < 0 else 0
        if not 0 <= first_token <= end <= length:
            given = f"{start}:{'' if stop is None else stop}"
            raise StoreError(f"{self.storage}: tokens {given} of example {i}, which has {length}")
        return unit, first + first_token, first + end

    def _described(self, examples: Sequence[int]) -> list[tuple[str, str, Example]]:
        results: list[Any] = [None] * len(examples)
        positions = self.index.position[np.asarray(examples, np.int64)]
        for unit, places in self._by_unit(examples):
            for place, found in zip(places, self._part(unit).examples(positions[places].tolist()), strict=True):
                results[place] = found
        return results

    def _segment_bits(self, examples: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        results = np.zeros(len(examples), np.uint64)
        for unit, places in self._by_unit(examples):
            part = self._part(unit)
            starts = np.array(part.token_starts)
            bits = np.append(np.uint64(1) << part.segments().astype(np.uint64), np.uint64(0))
            of_example = np.where(np.diff(starts) > 0, np.bitwise_or.reduceat(bits, starts[:-1]), np.uint64(0))
            results[places] = of_example[self.index.position[examples[places]]]
        return results

    def _count_entries(self, examples: npt.NDArray[np.int64]) -> int:
        means = self.index.totals[:, 1] / np.maximum(self.index.totals[:, 2], 1)
        return int((means[self.index.unit_of[examples]] * self.rows[examples]).sum())

    def _by_unit(self, examples: Sequence[int] | npt.NDArray[np.int64]) -> Iterator[tuple[int, list[int]]]:
        """Each unit that has some of the examples, with the places of these in `examples`."""
        units = self.index.unit_of[np.asarray(examples, np.int64)]
        order = np.argsort(units, kind="stable")
        for places in np.split(order, np.flatnonzero(np.diff(units[order])) + 1):
            if len(places):
                yield int(units[places[0]]), places.tolist()

    def _part(self, unit: int) -> PartReader:
        """The reader of a unit's part, from the cache or opened now."""
        with self._lock:
            part = self._parts.get(unit)
            if part is not None:
                self._parts.move_to_end(unit)
                return part
        info = self.index.part_info(unit)
        part = PartReader(self._copies or self.storage, info, self.spec.targets, self._codebook, self._scratch)
        with self._lock:
            if unit not in self._parts:
                self._parts[unit] = part
                self._part_bytes += part.nbytes
            while len(self._parts) > 1 and self._part_bytes > MAX_PART_BYTES:
                self._part_bytes -= self._parts.popitem(last=False)[1].nbytes
        return part

    def _codebook(self, digest: str) -> Codebook:
        with self._lock:
            if digest not in self._codebooks:
                self._codebooks[digest] = open_codebook(self.storage, digest, self.spec.vocab_size)
            return self._codebooks[digest]
