"""Stores of each kind of target, written by the product and read back: what they take, and what students read."""

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fidelity.rows import reduced
from benchmarks.fidelity.source.teacher import Sequences, Teacher
from benchmarks.fidelity.targets import Rows
from benchmarks.store.records import WrittenUnit, unlearned
from cache.rows.record import Record, Window
from cache.rows.spec import StoreSpec, TargetSpec
from cache.storage.local import LocalStorage
from cache.store.claims.codebook_choice import CodebookChoice
from cache.store.claims.codebook_claim import newest_generation
from cache.store.commits import create_store
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit

# A unit for the codebook to learn from, and three that only use it.
UNITS = 4


@dataclass(frozen=True, slots=True)
class Stored:
    """What one store came to, and its windows in the order of the sequences.

    bytes_per_token: of all files of the parts; there are no texts in them. by_array: of all units, the first one too.
    """

    bytes_per_token: float
    entries: float
    kl_of_rounding: float
    by_array: dict[str, float]
    windows: list[Window]

    @property
    def figures(self) -> dict[str, Any]:
        sizes = {"bytes_per_token": self.bytes_per_token, "bytes_by_array": self.by_array}
        return {**sizes, "entries": self.entries, "rounding_kl": self.kl_of_rounding}


class StoreWriter:
    """One store, a unit at a time."""

    def __init__(self, folder: Path, spec: TargetSpec, vocab: int) -> None:
        self._storage = LocalStorage(folder)
        self._spec = StoreSpec("fidelity", "none", "none", "none", vocab, vocab, "float32", spec, None)
        create_store(self._storage, self._spec)
        self._codebooks = CodebookChoice(self._storage, self._spec)
        self._keys: list[str] = []
        self._units: list[WrittenUnit] = []

    def write(self, records: Sequence[Record]) -> None:
        started = time.process_time()
        commit, _ = write_unit(self._storage, self._spec, records, codebooks=self._codebooks)
        rows, seconds = sum(record.target_rows for record in records), time.process_time() - started
        self._units.append(WrittenUnit(rows, commit.part.bytes, seconds, newest_generation(self._storage)))
        self._keys += [record.key for record in records]

    def read(self) -> Stored:
        """Bytes are those of the units that the codebook was not learned from."""
        take_snapshot(self._storage)
        store = LogitStore.open(str(self._storage.root), expect=self._spec)
        info = store.info()
        place = {store.key(i): i for i in range(len(store))}
        windows = store.read([place[key] for key in self._keys])
        arrays = {name: size / info.rows for name, size in store.bytes_by_array().items()}
        units = unlearned(self._units)
        size = sum(unit.bytes for unit in units) / sum(unit.tokens for unit in units)
        return Stored(size, info.entries / info.rows, info.kl, arrays, windows)


def write_stores(teacher: Teacher, sequences: Sequences, kinds: Sequence[Rows]) -> dict[Rows, Stored]:
    """One store of each kind, all from the same logits. What the product's files cannot express is left out."""
    specs = {kind: kind.stored_as for kind in kinds if kind.stored_as}
    kinds = list(specs)
    size = -(-len(sequences) // UNITS)
    with tempfile.TemporaryDirectory(prefix="logitbank-") as folder:
        writers = {
            kind: StoreWriter(Path(folder, str(number)), spec, teacher.vocab_size)
            for number, (kind, spec) in enumerate(specs.items())
        }
        pending: dict[Rows, list[Record]] = {kind: [] for kind in kinds}
        for block in reduced(teacher, sequences, kinds):
            for kind, records in block.items():
                pending[kind] += [as_stored(record, kind) for record in records]
                if len(pending[kind]) >= size:
                    writers[kind].write(pending[kind][:size])
                    pending[kind] = pending[kind][size:]
        for kind, records in pending.items():
            if records:
                writers[kind].write(records)
        return {kind: writer.read() for kind, writer in writers.items()}


def as_stored(record: Record, kind: Rows) -> Record:
    """A record as the store of its kind takes it: a draw there stands for that store's threshold."""
    if kind.is_product or kind.stored_as is None:
        return record
    targets = record.targets
    is_draw = targets.rank_of_entry >= np.repeat(targets.exact_counts, targets.counts)
    logprobs = np.where(is_draw, np.float32(math.log(kind.stored_as.threshold)), targets.logprobs)
    return replace(record, targets=replace(targets, logprobs=logprobs))
