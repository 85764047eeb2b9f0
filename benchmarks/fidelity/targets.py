"""Kinds of targets, and their stores: written by the product from a teacher's full logits, and read back."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor

from benchmarks.fidelity.teacher import Sequences, Teacher
from benchmarks.store.records import unlearned_bytes
from cache.errors import InputError
from cache.examples.example import Example, Segment, TokenizedExample
from cache.rows.codebook import Codebook
from cache.rows.record import Record, Window
from cache.rows.sparse_targets import SparseTargets, concatenate, empty_targets
from cache.rows.spec import StoreSpec, TargetSpec
from cache.storage.local import LocalStorage
from cache.store.claims.codebook_claim import read_codebook
from cache.store.commits import create_store
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from student.losses.settings import LossSettings
from student.losses.target_forms import TargetForm
from student.losses.weighted_objectives import WeightedObjectives
from teacher_serving.reduction.draws import row_uniforms
from teacher_serving.reduction.reducer import Reducer

# A unit for the codebook to learn from, and three that only use it.
UNITS = 4
# Sequences whose logits are made at a time, all modes taking their rows from them.
BLOCK = 8


@dataclass(frozen=True, slots=True)
class Target:
    """What a student learns from. spec: of the store, None for real tokens and for the whole distribution."""

    name: str
    spec: TargetSpec | None
    tail: Literal["bucket", "renormalise"] = "bucket"

    @property
    def objectives(self) -> WeightedObjectives:
        """The product's loss: forward KL to what the store holds, or real tokens."""
        if self.spec is None:
            return WeightedObjectives.of(LossSettings(objective="hard_label"), TargetForm("none"))
        return WeightedObjectives.of(LossSettings(tail=self.tail), TargetForm.of(self.spec))


HARD, FULL = Target("hard_label", None), Target("full", None)


def topk(k: int, tail: Literal["bucket", "renormalise"]) -> Target:
    return Target(f"topk_{k}_{'tail' if tail == 'bucket' else 'renormalised'}", TargetSpec("topk", k), tail)


def sampled(draws: int) -> Target:
    return Target(f"sampled_{draws}", TargetSpec("sampled", draws=draws))


def systematic(draws: int) -> Target:
    return Target(f"systematic_{draws}", TargetSpec("sampled", draws=draws, systematic=True))


def threshold(tau: float) -> Target:
    return Target(f"threshold_{tau:g}", TargetSpec("threshold", threshold=tau))


TARGETS = (
    HARD,
    topk(12, "renormalise"),
    topk(50, "renormalise"),
    topk(12, "bucket"),
    topk(50, "bucket"),
    topk(64, "bucket"),
    sampled(12),
    sampled(50),
    *(systematic(draws) for draws in (5, 8, 12, 20, 32, 50)),
    *(threshold(tau) for tau in (0.2, 0.1, 0.05, 0.035, 0.025, 0.0175, 0.0125)),
)


def named_targets(names: str) -> tuple[Target, ...]:
    """Of a list with commas. Raises InputError for an unknown one."""
    known = {target.name: target for target in (FULL, *TARGETS)}
    selected = [name for name in names.split(",") if name]
    if unknown := sorted(set(selected) - set(known)):
        raise InputError(f"--modes: unknown mode {unknown[0]!r}; choose from {', '.join(known)}")
    return tuple(known[name] for name in selected)


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
        self._codebook: Codebook | None = None
        self._keys: list[str] = []
        self._first: list[Record] = []

    def write(self, records: Sequence[Record]) -> None:
        write_unit(self._storage, self._spec, records, codebook=self._codebook)
        self._codebook = self._codebook or read_codebook(self._storage, self._spec.vocab_size)
        self._first = self._first or list(records[:1])
        self._keys += [record.key for record in records]

    def read(self) -> Stored:
        """Bytes are those of the units that the codebook was not learned from."""
        take_snapshot(self._storage)
        store = LogitStore.open(str(self._storage.root), expect=self._spec)
        info = store.info()
        place = {store.key(i): i for i in range(len(store))}
        windows = store.read([place[key] for key in self._keys])
        arrays = {name: size / info.rows for name, size in store.bytes_by_array().items()}
        return Stored(unlearned_bytes(store, self._first), info.entries / info.rows, info.kl, arrays, windows)


def write_stores(
    folder: Path, teacher: Teacher, sequences: Sequences, specs: Sequence[TargetSpec]
) -> dict[TargetSpec, Stored]:
    """One store a spec, all from the same logits."""
    writers = {spec: StoreWriter(folder / str(number), spec, teacher.vocab_size) for number, spec in enumerate(specs)}
    size = -(-len(sequences) // UNITS)
    for start in range(0, len(sequences), size):
        unit = slice(start, start + size)
        result: dict[TargetSpec, list[Record]] = {spec: [] for spec in specs}
        for records in reduced(teacher, Sequences(sequences.tokens[unit], sequences.hidden[unit]), specs):
            for spec in specs:
                result[spec] += records[spec]
        for spec, writer in writers.items():
            writer.write(result[spec])
    return {spec: writer.read() for spec, writer in writers.items()}


def reduced(
    teacher: Teacher, sequences: Sequences, specs: Sequence[TargetSpec], redraw: int = 0
) -> Iterator[dict[TargetSpec, list[Record]]]:
    """Records of the sequences, block by block. redraw: places the draws anew; 0 is what a capture draws."""
    reducers = {spec: Reducer(spec, teacher.vocab_size) for spec in specs}
    length = sequences.tokens.shape[1]
    for start in range(0, len(sequences), BLOCK):
        tokens = sequences.tokens[start : start + BLOCK].numpy().astype(np.uint32)
        logits = teacher.logits(sequences.hidden[start : start + BLOCK])
        examples = [tokenized(row, start + i) for i, row in enumerate(tokens)]
        block: dict[TargetSpec, list[Record]] = {}
        for spec, reducer in reducers.items():
            placed = [draws_of(example.key, redraw, length - 1, spec) for example in examples]
            rows = reducer.reduce(logits, tokens[:, 1:].reshape(-1).astype(np.int64), np.concatenate(placed))
            token_logprobs = np.split(rows.token_logprobs, len(examples))
            block[spec] = [
                record(example, rows.targets.rows(i * (length - 1), (i + 1) * (length - 1)), own)
                for i, (example, own) in enumerate(zip(examples, token_logprobs, strict=True))
            ]
        yield block


def draws_of(key: str, redraw: int, rows: int, spec: TargetSpec) -> npt.NDArray[np.float64]:
    """The uniform numbers of an example's rows."""
    return row_uniforms(spec, f"{int(key, 16) ^ redraw:032x}", np.arange(rows))


def tokenized(tokens: npt.NDArray[np.uint32], number: int) -> TokenizedExample:
    """Every token but the first carries a loss."""
    segments = np.full(len(tokens), Segment.RESPONSE, np.uint8)
    segments[0] = Segment.PROMPT
    return TokenizedExample(Example(str(number), ()), tokens, segments)


def record(example: TokenizedExample, rows: SparseTargets, own: npt.NDArray[np.float32]) -> Record:
    """The last token has no target, the first no log-probability."""
    own = np.concatenate([np.full(1, np.nan, np.float32), own])
    return Record(example.key, example, concatenate([rows, empty_targets(1)]), own)


def bare_windows(tokens: Tensor) -> list[Window]:
    """Windows without targets of tokens int64 [N, L], for what needs none."""
    examples = [tokenized(row, i) for i, row in enumerate(tokens.numpy().astype(np.uint32))]
    own = np.full(tokens.shape[1], np.nan, np.float32)
    return [Window(e.tokens, e.segments, empty_targets(len(own)), own) for e in examples]
