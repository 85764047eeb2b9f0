"""Stores of random examples in every target mode, and comparison of two stores that must be the same."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.examples.example import Example, Segment, TokenizedExample
from cache.parts.layout import Profile
from cache.rows.record import Record
from cache.rows.sparse_targets import SparseTargets, concatenate, empty_targets
from cache.rows.spec import StoreSpec, TargetSpec
from cache.storage.local import LocalStorage
from cache.store.commits import create_store
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit

VOCAB, PROMPT, RESPONSE = 300, 4, 7
TOPK = TargetSpec("topk", 8)
NUCLEUS = TargetSpec("nucleus", 8, mass=0.7, entropy=True, temperatures=(1.0, 2.0))
THRESHOLD = TargetSpec("threshold", threshold=0.05)
SAMPLED = TargetSpec("sampled", draws=12)


def heads(rng: np.random.Generator, rows: int, k: int, spread: tuple[float, float] = (0.1, 4.0)) -> SparseTargets:
    """The k largest of random distributions over VOCAB, flat and peaked ones."""
    logits = rng.normal(size=(rows, VOCAB)) * rng.uniform(*spread, (rows, 1))
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    ids = np.argsort(-log_p, axis=1)[:, :k]
    held = np.take_along_axis(log_p, ids, axis=1)
    tail = np.log1p(-np.exp(held).sum(axis=1))
    offsets = np.arange(0, rows * k + 1, k)
    return SparseTargets(offsets, ids.ravel().astype("u4"), held.ravel().astype("f4"), tail.astype("f4"))


def cut(targets: SparseTargets, counts: npt.NDArray[np.int64]) -> SparseTargets:
    """The first `counts` entries of each row."""
    kept = targets.rank_of_entry < np.repeat(counts, targets.counts)
    rows = np.repeat(np.arange(len(counts)), counts)
    mass = np.bincount(rows, weights=np.exp(targets.logprobs[kept].astype(float)), minlength=len(counts))
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return SparseTargets(offsets, targets.ids[kept], targets.logprobs[kept], np.log1p(-mass).astype("f4"))


def rows_for(spec: TargetSpec, rng: np.random.Generator, rows: int) -> SparseTargets:
    if spec.mode == "topk":
        return heads(rng, rows, spec.k)
    if spec.mode == "nucleus":
        targets = cut(heads(rng, rows, spec.k), rng.integers(1, spec.k + 1, rows))
        return replace(
            targets,
            entropy=rng.uniform(0, 5, rows).astype("f4"),
            log_normalizers=rng.normal(size=(rows, 2)).astype("f4"),
        )
    counts = rng.integers(1, 4, rows) if spec.mode == "threshold" else np.zeros(rows, np.int64)
    head = cut(heads(rng, rows, 3), counts)
    ids, logprobs, ends = [], [], [0]
    for row in range(rows):
        own = head.rows(row, row + 1)
        drawn = np.setdiff1d(rng.choice(VOCAB, 4, replace=False), own.ids)
        value = np.log(spec.threshold) if spec.mode == "threshold" else np.log(3 / spec.draws)
        ids.append(np.concatenate([own.ids, drawn]))
        logprobs.append(np.concatenate([own.logprobs, np.full(len(drawn), value)]))
        ends.append(ends[-1] + len(ids[-1]))
    return SparseTargets(
        np.array(ends), np.concatenate(ids).astype("u4"), np.concatenate(logprobs).astype("f4"), head.log_tail, counts
    )


def with_empty_rows(targets: SparseTargets, before: int) -> SparseTargets:
    return concatenate([empty_targets(before), targets, empty_targets(1)])


def records_for(spec: TargetSpec, count: int, seed: int = 0) -> list[Record]:
    """Examples of different lengths; the second row of each response holds no target."""
    rng = np.random.default_rng(seed)
    records = []
    for i in range(count):
        response = RESPONSE + i % 3
        n = PROMPT + response
        tokens = rng.integers(0, VOCAB, n).astype(np.uint32)
        segments = np.array([Segment.PROMPT] * PROMPT + [Segment.RATIONALE] * 2 + [Segment.RESPONSE] * (response - 2))
        example = Example(f"e{i}", ({"role": "user", "content": "Grüß {}"},), "why", "ü\n", {"n": i, "x": [None]})
        tokenized = TokenizedExample(example, tokens, segments.astype(np.uint8), "scored" if i % 2 else "generated/0")
        targets = with_empty_rows(rows_for(spec, rng, response), PROMPT - 1)
        own = np.where(segments == Segment.PROMPT, np.nan, -1.25).astype(np.float32)
        records.append(Record(tokenized.key, tokenized, targets, own))
    return records


def make_store(
    folder: Path, targets: TargetSpec = TOPK, units: int = 3, examples: int = 4, profile: Profile = "compact"
) -> LogitStore:
    spec = StoreSpec("teacher", "weights", "tokenizer", "template", VOCAB, VOCAB, "float32", targets, None)
    storage = LocalStorage(folder)
    create_store(storage, spec)
    for unit in range(units):
        write_unit(storage, spec, records_for(targets, examples, unit), profile)
    take_snapshot(storage)
    return LogitStore.open(str(folder))


def by_level(record: Record) -> list[tuple[Any, ...]]:
    """Entries of each row such that only the order within one value is forgotten."""
    targets = record.targets
    kind = targets.rank_of_entry < np.repeat(targets.exact_counts, targets.counts)
    values = np.round(targets.logprobs.astype(float), 4)
    return sorted(zip(targets.row_of_entry, ~kind, -values, targets.ids, strict=True))


def assert_same_targets(found: Record, wanted: Record, tolerance: float = 1e-5) -> None:
    assert np.array_equal(found.targets.offsets, wanted.targets.offsets)
    assert np.array_equal(found.targets.exact_counts, wanted.targets.exact_counts)
    assert np.array_equal(np.isneginf(found.targets.log_tail), np.isneginf(wanted.targets.log_tail))
    assert np.abs(sorted_values(found) - sorted_values(wanted)).max() <= tolerance


def sorted_values(record: Record) -> npt.NDArray[np.float32]:
    """Log-probabilities in the order of row and id: compares values of the same id."""
    order = np.lexsort((record.targets.ids, record.targets.row_of_entry))
    return np.asarray(record.targets.logprobs[order])


def assert_same_records(found: LogitStore, wanted: LogitStore) -> None:
    assert len(found) == len(wanted)
    for record in wanted:
        other = found[found.find(record.key)]
        assert other.tokenized.example == record.tokenized.example
        assert other.tokenized.origin == record.tokenized.origin
        assert np.array_equal(other.tokenized.tokens, record.tokenized.tokens)
        assert np.array_equal(other.tokenized.segments, record.tokenized.segments)
        assert np.array_equal(other.token_logprobs, record.token_logprobs, equal_nan=True)
        assert_same_targets(other, record)
        assert [e[:2] + e[3:] for e in by_level(other)] == [e[:2] + e[3:] for e in by_level(record)]
        assert np.array_equal(other.targets.log_tail, record.targets.log_tail)
        for name in ("entropy", "log_normalizers"):
            mine, theirs = getattr(other.targets, name), getattr(record.targets, name)
            assert (mine is None) == (theirs is None)
            assert mine is None or np.array_equal(mine, theirs, equal_nan=True)


def by_tokens(store: LogitStore) -> dict[bytes, Record]:
    """Records of a store that kept nothing but tokens."""
    return {record.tokenized.tokens.tobytes(): record for record in store}


class KilledError(Exception):
    """A kill between two units."""


def stop_after(number: int) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done >= number:
            raise KilledError

    return progress
