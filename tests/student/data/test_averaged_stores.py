"""Stores of several teachers are read as one store with averaged targets."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cache.errors import SpecMismatchError, StoreError
from cache.examples.example import Example, Segment, TokenizedExample
from cache.rows.record import Record
from cache.rows.sparse_targets import concatenate, empty_targets
from cache.rows.spec import StoreSpec, TargetSpec
from cache.storage.local import LocalStorage
from cache.store.commits import create_store
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from student.data.averaged_stores import AveragedStores, average
from tests.cache.rows.rows import TARGETS, VOCAB, random_record, random_rows, store_spec


def scored(rng: np.random.Generator, name: str, spec: TargetSpec) -> Record:
    return random_record(rng, name, int(rng.integers(2, 6)), int(rng.integers(1, 9)), spec)


def captured_again(rng: np.random.Generator, record: Record, spec: TargetSpec) -> Record:
    """The same example by another teacher."""
    speaks = record.targets.counts > 0
    rows = [random_rows(rng, 1, spec) if here else empty_targets(1) for here in speaks]
    logprobs = np.where(np.isnan(record.token_logprobs), np.nan, -rng.integers(0, 500, len(speaks)) / 64)
    return replace(record, targets=concatenate(rows), token_logprobs=logprobs.astype(np.float32))


def generated(rng: np.random.Generator, spec: TargetSpec) -> Record:
    """A response that a teacher generated. It has the same key in every store."""
    tokens = rng.integers(0, VOCAB, 6).astype(np.uint32)
    segments = np.array([Segment.PROMPT] * 2 + [Segment.RESPONSE] * 4, np.uint8)
    targets = concatenate([empty_targets(1), random_rows(rng, 4, spec), empty_targets(1)])
    example = TokenizedExample(Example("w", ({"role": "user", "content": "?"},)), tokens, segments, "generated/0")
    return Record("ab" * 16, example, targets, np.array([np.nan] * 2 + [-1] * 4, np.float32))


def fill(folder: Path, spec: StoreSpec, records: list[Record]) -> LogitStore:
    storage = LocalStorage(folder)
    create_store(storage, spec)
    for start in range(0, len(records), 4):
        write_unit(storage, spec, records[start : start + 4])
    take_snapshot(storage)
    return LogitStore.open(str(storage))


@pytest.mark.parametrize("modes", [("topk", "nucleus"), ("threshold", "sampled")])
def test_stores_are_averaged_over_their_common_examples(tmp_path: Path, modes: tuple[str, str]) -> None:
    rng = np.random.default_rng(0)
    specs = [TARGETS[mode] for mode in modes]
    records = [scored(rng, str(i), specs[0]) for i in range(12)]
    more = [scored(rng, f"more {i}", specs[1]) for i in range(3)]
    others = [captured_again(rng, record, specs[1]) for record in records[3:]]
    order = rng.permutation(12)
    a = fill(tmp_path / "a", store_spec(specs[0]), [*records, generated(rng, specs[0])])
    b = fill(tmp_path / "b", store_spec(specs[1]), [*[[*others, *more][i] for i in order], generated(rng, specs[1])])
    both = AveragedStores([a, b], [3, 1])

    common = {record.key for record in records[3:]}
    keys = [both[i].key for i in range(len(both))]
    assert keys == [a.key(i) for i in range(len(a)) if a.key(i) in common]
    assert both.left_out == 3 + 3 + 1  # of a alone, of b alone, and what both generated under one key
    assert both.has_origin(["scored"]).all() and not both.has_origin(["generated"]).any()
    assert both.tokens.tolist() == [len(both[i].tokenized.tokens) for i in range(len(both))]
    assert both.rows.tolist() == [both[i].target_rows for i in range(len(both))]
    assert not both.spec.targets.entropy and not both.spec.targets.temperatures

    asked = [5, 0, 5, 8]
    for i, window in zip(asked, both.read(asked), strict=True):
        ours, theirs = (store.read([store.find(keys[i])])[0] for store in (a, b))
        expected = average([ours.targets, theirs.targets], [3, 1])
        for name in ("offsets", "ids", "logprobs", "log_tail"):
            assert np.array_equal(getattr(window.targets, name), getattr(expected, name))
        assert np.array_equal(window.tokens, ours.tokens) and np.array_equal(window.segments, ours.segments)
        mixed = np.log(0.75 * np.exp(ours.token_logprobs) + 0.25 * np.exp(theirs.token_logprobs))
        assert np.allclose(window.token_logprobs, mixed, equal_nan=True, atol=1e-6)
        assert np.isfinite(window.token_logprobs).any() and np.isnan(window.token_logprobs).any()
        record = both[i]
        assert record.tokenized.example.id == a[a.find(keys[i])].tokenized.example.id
        assert np.array_equal(record.targets.logprobs, window.targets.logprobs)
        assert np.array_equal(record.token_logprobs, window.token_logprobs, equal_nan=True)
    assert both.read([]) == []


def test_targets_of_prompts_need_all_stores(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    spec = store_spec(TARGETS["topk"])
    record = random_record(rng, "0", 4, 5, spec.targets)
    every = replace(record, targets=concatenate([random_rows(rng, 8, spec.targets), empty_targets(1)]))
    partly = fill(tmp_path / "a", spec, [record])
    complete = fill(tmp_path / "b", replace(spec, asked="all"), [every])
    both = AveragedStores([complete, partly], [1, 1])
    assert both.spec.asked == "assistant"
    assert both.rows.tolist() == [both[0].target_rows] == [5]
    assert AveragedStores([complete, complete], [1, 1]).spec.asked == "all"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"tokenizer": "another"}, "tokenizer: 'tokenizer' in .*a, 'another' in .*b"),
        ({"vocab_size": VOCAB + 8}, f"vocab_size: {VOCAB} in .*a, {VOCAB + 8} in .*b"),
        ({"targets": TARGETS["threshold"]}, "kind of targets: 'exact .*a, 'unbiased .*b"),
    ],
)
def test_stores_of_unlike_teachers_are_rejected(tmp_path: Path, change: dict[str, object], message: str) -> None:
    rng = np.random.default_rng(0)
    spec = store_spec(TARGETS["topk"])
    other = replace(spec, **change)  # type: ignore[arg-type]
    a = fill(tmp_path / "a", spec, [scored(rng, "0", spec.targets)])
    b = fill(tmp_path / "b", other, [scored(rng, "0", other.targets)])
    with pytest.raises(SpecMismatchError, match=message):
        AveragedStores([a, b], [1, 1])


def test_stores_with_nothing_to_average_are_rejected(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    spec = store_spec(TARGETS["topk"])
    a = fill(tmp_path / "a", spec, [scored(rng, "0", spec.targets), generated(rng, spec.targets)])
    b = fill(tmp_path / "b", spec, [scored(rng, "1", spec.targets), generated(rng, spec.targets)])
    with pytest.raises(StoreError, match="no scored example is in all of these stores"):
        AveragedStores([a, b], [1, 1])
    text = TargetSpec("topk", 0)
    without = replace(scored(rng, "0", spec.targets), targets=empty_targets(0))
    without = replace(without, targets=empty_targets(len(without.tokenized.tokens)))
    c = fill(tmp_path / "c", store_spec(text), [without])
    with pytest.raises(StoreError, match="texts without targets"):
        AveragedStores([a, c], [1, 1])


def test_one_key_with_two_texts_raises(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    spec = store_spec(TARGETS["topk"])
    record, other = random_record(rng, "0", 3, 4, spec.targets), random_record(rng, "0", 3, 4, spec.targets)
    a = fill(tmp_path / "a", spec, [record])
    b = fill(tmp_path / "b", spec, [replace(other, key=record.key)])
    with pytest.raises(StoreError, match=f"example {record.key} has different tokens"):
        AveragedStores([a, b], [1, 1]).read([0])
