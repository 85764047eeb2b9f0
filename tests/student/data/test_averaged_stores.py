"""Averages of teachers are averages of their distributions: bounded for truncated rows, unbiased for sampled rows."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.errors import InputError, SpecMismatchError, StoreError
from cache.examples.example import Example, Segment, TokenizedExample
from cache.rows.record import Record
from cache.rows.sparse_targets import SparseTargets, concatenate, empty_targets
from cache.rows.spec import StoreSpec, TargetSpec
from cache.storage.local import LocalStorage
from cache.store.commits import create_store
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from student.data import averaged_stores
from student.data.averaged_stores import AveragedStores, average
from tests.cache.rows.rows import TARGETS, VOCAB, log_softmax, random_record, random_rows, sparse, store_spec

EXACT = [TARGETS["topk"], TARGETS["nucleus"], TargetSpec("topk", 3)]
UNBIASED = [TARGETS["threshold"], TARGETS["sampled"], TargetSpec("threshold", threshold=0.1)]
Dense = npt.NDArray[np.float64]


def dense_rows(rng: np.random.Generator, teachers: int, rows: int, vocab: int) -> list[Dense]:
    """log p of teachers that agree in part, so that their supports overlap in part."""
    common = rng.normal(size=(rows, vocab)) * 3
    return [log_softmax(common + rng.normal(size=(rows, vocab)) * rng.uniform(0, 3)) for _ in range(teachers)]


def spread(targets: SparseTargets, vocab: int) -> tuple[Dense, npt.NDArray[np.bool_]]:
    """exp(logprob) of every id, and whether it is an exact entry, both [rows, vocabulary]."""
    p, exact = np.zeros((len(targets), vocab)), np.zeros((len(targets), vocab), bool)
    row = targets.row_of_entry
    p[row, targets.ids] = np.exp(targets.logprobs.astype(np.float64))
    exact[row, targets.ids] = targets.rank_of_entry < np.repeat(targets.exact_counts, targets.counts)
    return p, exact


@settings(deadline=None, max_examples=60)
@given(
    specs=st.lists(st.sampled_from(EXACT), min_size=1, max_size=3),
    weights=st.lists(st.floats(0.05, 9), min_size=3, max_size=3),
    seed=st.integers(0, 10**6),
)
def test_exact_entries_bound_the_dense_average(specs: list[TargetSpec], weights: list[float], seed: int) -> None:
    rng = np.random.default_rng(seed)
    vocab = int(rng.integers(25, 120))
    teachers = dense_rows(rng, len(specs), 4, vocab)
    given_targets = [sparse(rng, log_p, spec) for log_p, spec in zip(teachers, specs, strict=True)]
    weights = weights[: len(specs)]
    shares = np.array(weights) / sum(weights)
    result = average(given_targets, weights)
    result.validate(vocab, "average")
    assert result.exact is None and result.entropy is None and result.log_normalizers is None

    p, is_entry = spread(result, vocab)
    truth = np.tensordot(shares, np.exp(teachers), axes=1)
    entries = [spread(targets, vocab)[1] for targets in given_targets]
    assert np.array_equal(is_entry, np.logical_or.reduce(entries))
    missed = np.zeros_like(truth)
    for share, here, log_p, targets in zip(shares, entries, teachers, given_targets, strict=True):
        smallest = np.where(here, np.exp(log_p), 1).min(axis=1)
        missed += share * ~here * np.minimum(smallest, np.exp(targets.log_tail.astype(np.float64)))[:, None]
    slack = 1e-6 * truth + 1e-9
    assert (p <= truth + slack)[is_entry].all()
    assert (p >= truth - missed - slack)[is_entry].all()
    assert np.allclose(p[is_entry & (missed == 0)], truth[is_entry & (missed == 0)], rtol=1e-5)
    tail = np.exp(result.log_tail.astype(np.float64))
    assert (tail >= np.where(is_entry, 0, truth).sum(axis=1) - 1e-6).all()
    assert np.allclose(p.sum(axis=1) + tail, 1, atol=1e-5)


@settings(deadline=None, max_examples=60)
@given(
    specs=st.lists(st.sampled_from(UNBIASED), min_size=1, max_size=3),
    weights=st.lists(st.floats(0.05, 9), min_size=3, max_size=3),
    seed=st.integers(0, 10**6),
)
def test_estimates_add_up_to_the_sum_of_the_estimates(specs: list[TargetSpec], weights: list[float], seed: int) -> None:
    """A sum of unbiased estimates is unbiased; and only what is exact in every teacher is exact."""
    rng = np.random.default_rng(seed)
    vocab = int(rng.integers(25, 120))
    teachers = dense_rows(rng, len(specs), 4, vocab)
    given_targets = [sparse(rng, log_p, spec) for log_p, spec in zip(teachers, specs, strict=True)]
    weights = weights[: len(specs)]
    shares = np.array(weights) / sum(weights)
    result = average(given_targets, weights)
    result.validate(vocab, "average")
    assert result.entropy is None and result.log_normalizers is None

    each = [spread(targets, vocab) for targets in given_targets]
    p, exact = spread(result, vocab)
    assert np.allclose(p, sum(share * q for share, (q, _) in zip(shares, each, strict=True)), rtol=1e-5, atol=0)
    assert np.array_equal(exact, np.logical_and.reduce([certain for _, certain in each]))
    truth = np.tensordot(shares, np.exp(teachers), axes=1)
    assert np.allclose(p[exact], truth[exact], rtol=1e-5)
    outside = np.where(exact, 0, truth).sum(axis=1)
    assert np.allclose(np.exp(result.log_tail), np.where(exact.any(axis=1), outside, 1), atol=1e-5)


def test_draws_average_to_the_dense_average() -> None:
    """Both kinds of estimates together, against the distributions themselves and not against each other."""
    rng = np.random.default_rng(3)
    teachers = dense_rows(rng, 2, 1, 40)
    draws = 4000
    given_targets = [
        sparse(rng, np.repeat(log_p, draws, axis=0), spec)
        for log_p, spec in zip(teachers, [UNBIASED[2], TargetSpec("sampled", draws=20)], strict=True)
    ]
    p, _ = spread(average(given_targets, [1, 2]), 40)
    a, b = np.exp(teachers[0][0]), np.exp(teachers[1][0])
    # Variance of an estimate is at most threshold * p, or p / draws; a draw or two of a rare id is no bias.
    error = np.sqrt((0.1 * a + 4 * b / 20) / 9 / draws)
    assert (np.abs(p.mean(axis=0) - (a + 2 * b) / 3) < 5 * error + 3e-5).all()
    assert error.max() < 0.003


def test_rows_with_every_id_average_exactly_and_have_no_tail() -> None:
    rng = np.random.default_rng(0)
    teachers = dense_rows(rng, 3, 5, 30)
    result = average([sparse(rng, log_p, TargetSpec("topk", 30)) for log_p in teachers], [1, 2, 5])
    p, _ = spread(result, 30)
    assert np.allclose(p, np.tensordot([0.125, 0.25, 0.625], np.exp(teachers), axes=1), rtol=1e-5)
    assert (result.log_tail < -25).all()


@pytest.mark.parametrize("mode", TARGETS)
def test_one_teacher_stays_as_it_is(mode: str) -> None:
    """Entries whose value is the same may change places, nothing else."""
    targets = random_rows(np.random.default_rng(1), 30, TARGETS[mode])
    result = average([targets], [0.3])
    for before, after in zip(spread(targets, VOCAB), spread(result, VOCAB), strict=True):
        assert np.array_equal(before, after)
    assert np.allclose(result.log_tail, targets.log_tail, rtol=1e-6)
    assert np.array_equal(result.exact_counts, targets.exact_counts)


def test_a_teacher_twice_is_that_teacher() -> None:
    """Its sampled ids are then sampled in both, and stay so."""
    targets = random_rows(np.random.default_rng(1), 30, TARGETS["threshold"])
    result = average([targets, targets], [1, 3])
    for before, after in zip(spread(targets, VOCAB), spread(result, VOCAB), strict=True):
        assert np.allclose(before, after, rtol=1e-5, atol=0)


def test_a_row_needs_all_teachers() -> None:
    rng = np.random.default_rng(2)
    a = concatenate([empty_targets(1), random_rows(rng, 2, TARGETS["topk"]), empty_targets(1)])
    b = concatenate([random_rows(rng, 2, TARGETS["topk"]), empty_targets(2)])
    result = average([a, b], [1, 1])
    result.validate(VOCAB, "average")
    assert (result.counts > 0).tolist() == [False, True, False, False]
    assert result.log_tail[[0, 2, 3]].tolist() == [0, 0, 0]


def test_blocks_of_rows_leave_no_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    given_targets = [random_rows(rng, 23, TARGETS["nucleus"]) for _ in range(2)]
    at_once = average(given_targets, [1, 2])
    monkeypatch.setattr(averaged_stores, "ROWS_PER_BLOCK", 5)
    parts = average(given_targets, [1, 2])
    for name in ("offsets", "ids", "logprobs", "log_tail"):
        assert np.array_equal(getattr(at_once, name), getattr(parts, name))


def test_certain_and_all_but_impossible_entries_survive() -> None:
    """Log-probabilities of 0 and of -700, which no float32 probability holds."""
    certain = SparseTargets(
        np.array([0, 2]), np.array([7, 3], np.uint32), np.array([0, -700], np.float32), np.array([-np.inf], np.float32)
    )
    other = replace(certain, ids=np.array([7, 9], np.uint32))
    result = average([certain, other], [1, 1])
    result.validate(10, "average")
    assert result.ids.tolist() == [7, 3, 9]
    assert np.allclose(result.logprobs, [0, -700 - np.log(2), -700 - np.log(2)])
    assert result.log_tail.tolist() == [-np.inf]


def test_no_rows_average_to_none() -> None:
    assert len(average([empty_targets(0), empty_targets(0)], [1, 1])) == 0
    assert average([empty_targets(3), empty_targets(3)], [1, 1]).counts.tolist() == [0, 0, 0]


def test_unlike_targets_and_bad_weights_are_rejected() -> None:
    rng = np.random.default_rng(0)
    a, b = random_rows(rng, 3, TARGETS["topk"]), random_rows(rng, 3, TARGETS["threshold"])
    with pytest.raises(InputError, match="neither a bound nor an unbiased"):
        average([a, b], [1, 1])
    with pytest.raises(InputError, match=r"\[3, 2\] rows"):
        average([a, a.rows(0, 2)], [1, 1])
    for weights in ([1], [1, 0], [1, -1], [1, float("nan")]):
        with pytest.raises(InputError, match="a positive weight for each"):
            average([a, a], weights)
    average([b, empty_targets(3)], [1, 1])  # rows without entries are of either kind


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
