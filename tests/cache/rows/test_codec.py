"""Rows to integers and back: nothing is lost but what the grid rounds, whatever the row looks like."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.errors import InputError, IntegrityError
from cache.rows.codebook import Codebook, plain_codebook
from cache.rows.codec import (
    ODDS_LIMIT,
    RESOLUTION,
    SURPRISAL_LIMIT,
    Packed,
    decode_logprobs,
    decode_rows,
    encode_logprobs,
    encode_rows,
    measure_error,
    pair_dtype,
)
from cache.rows.level_grid import LOWEST_LOGPROB
from cache.rows.sparse_targets import SparseTargets, concatenate, empty_targets
from cache.rows.spec import TargetMode, TargetSpec
from cache.store.codebook_learning import code_bytes, frequency_codebook, learn_codebook, list_codebook
from tests.cache.rows.rows import MODES, TARGETS, VOCAB, id_sets, log_softmax, random_rows, sparse

KINDS = ("plain", "frequency", "lists", "by_token")
SHAPES = ("random", "equal", "one_hot", "deep", "sharp", "flat")
WIDE = 70_000


def whole_rows(rng: np.random.Generator, shape: str, rows: int, vocab: int) -> npt.NDArray[np.float64]:
    """Whole distributions, float64 [rows, vocab]."""
    if shape == "equal":
        return log_softmax(np.zeros((rows, vocab)))
    if shape == "one_hot":
        logits = np.full((rows, vocab), -np.inf)
        logits[np.arange(rows), rng.integers(0, vocab, rows)] = 0.0
        return logits
    if shape == "deep":
        # Evenly down to the lowest value that is stored, so that the last levels and large gaps are used.
        falls = np.linspace(0.0, LOWEST_LOGPROB, vocab) + rng.uniform(-0.1, 0.1, (rows, vocab))
        return log_softmax(rng.permuted(falls, axis=1))
    scale = {"random": 3.0, "sharp": 60.0, "flat": 0.01}[shape]
    return log_softmax(rng.normal(size=(rows, vocab)) * scale)


def make_codebook(kind: str, rng: np.random.Generator, vocab: int, mode: TargetMode) -> Codebook:
    """Learned from rows that have nothing to do with those to be coded: many of their ids are in no list."""
    if kind == "plain":
        return plain_codebook(vocab)
    # Few enough ids that those outside the lists, and contexts without a list, are common.
    seen = min(vocab, 40)
    few = log_softmax(rng.normal(size=(30, seen)) * 2)
    order = rng.permutation(vocab)[:seen]
    rows = sparse(rng, few, TARGETS[mode])
    rows = replace(rows, ids=order[rows.ids].astype(np.uint32))
    tokens = rng.integers(0, vocab, len(rows)).astype(np.uint32)
    if kind == "frequency":
        return frequency_codebook(rows, vocab)
    codebook = list_codebook(rows, tokens, vocab, by_token=kind == "by_token" or mode == "sampled")
    codebook.validate()
    return codebook


def log_sum(values: npt.NDArray[np.float64]) -> float:
    return float(np.logaddexp.reduce(values)) if len(values) else -np.inf


def check_round_trip(
    targets: SparseTargets, tokens: npt.NDArray[np.uint32], spec: TargetSpec, codebook: Codebook, vocab: int
) -> Packed:
    """Every promise of the codec for these rows."""
    targets.validate(vocab, "the rows of the test")
    packed = encode_rows(targets, tokens, spec, codebook)
    decoded = decode_rows(packed, tokens, spec, codebook, "rows")
    decoded.validate(vocab, "decoded rows")
    assert np.array_equal(decoded.offsets, targets.offsets)
    assert np.array_equal(decoded.exact_counts, targets.exact_counts)
    assert (decoded.exact is None) == (not spec.has_sampled)
    assert id_sets(decoded) == id_sets(targets)
    greatest = 0.0
    for row in range(len(targets)):
        greatest = max(greatest, check_row(targets.rows(row, row + 1), decoded.rows(row, row + 1), spec))
    error = measure_error(targets, decoded, vocab, "rows")
    assert error.max_abs_error == pytest.approx(greatest, abs=1e-6)
    return packed


def check_row(before: SparseTargets, after: SparseTargets, spec: TargetSpec) -> float:
    """Bounds for the values of one row. Returns its greatest error."""
    exact = int(before.exact_counts[0])
    assert after.logprobs.dtype == np.float32 and after.ids.dtype == np.uint32
    if spec.mode == "sampled":
        drawn = dict(zip(after.ids.tolist(), np.rint(np.exp(after.logprobs) * spec.draws).tolist(), strict=True))
        assert drawn == dict(
            zip(before.ids.tolist(), np.rint(np.exp(before.logprobs) * spec.draws).tolist(), strict=True)
        )
    value_of = dict(zip(before.ids.tolist(), before.logprobs.tolist(), strict=True))
    if spec.has_sampled:
        drawn_values = np.array([value_of[i] for i in after.ids[exact:].tolist()])
        assert np.abs(after.logprobs[exact:] - drawn_values).max(initial=0.0) < 1e-6
    if not exact:
        assert float(after.log_tail[0]) == 0.0
        return 0.0
    assert after.ids[0] == before.ids[0], "the first exact entry must stay first"
    true = np.array([value_of[i] for i in after.ids[:exact].tolist()])
    stored = after.logprobs[:exact].astype(np.float64)
    grid = spec.grid.astype(np.float64)
    above = np.clip(np.searchsorted(-grid, -true, side="right") - 1, 0, len(grid) - 2)
    half = (grid[above] - grid[above + 1]) / 2
    nearest = np.where(grid[above] - true <= true - grid[above + 1], grid[above], grid[above + 1])
    tail, tail_stored = float(before.log_tail[0]), float(after.log_tail[0])
    # What the stored tail leaves, and how far its rounding and that of the row's values may move the row.
    head = np.log(-np.expm1(tail)) if np.isfinite(tail) else 0.0
    moved = abs(log_sum(nearest) - head) + RESOLUTION / 2 + 2e-4
    error = np.abs(stored - true)
    assert (error <= half + moved).all()
    if np.isneginf(tail):
        assert np.isneginf(tail_stored)
    elif tail > -ODDS_LIMIT * RESOLUTION:
        assert abs(tail - tail_stored) <= RESOLUTION / 2 + 1e-4
    mass = log_sum(stored)
    summed = 1e-4 + 4e-9 * exact  # masses are added up in float32
    assert np.exp(mass) + np.exp(tail_stored) == pytest.approx(1.0, abs=summed)
    # And of a small head, relative to the head itself.
    log_head = np.log(-np.expm1(tail_stored)) if tail_stored < 0 and np.isfinite(tail_stored) else 0.0
    assert mass == pytest.approx(log_head, abs=2e-2)
    return float(error.max())


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    mode=st.sampled_from(MODES),
    vocab=st.sampled_from((2, 5, VOCAB)),
    kind=st.sampled_from(KINDS),
    shapes=st.lists(st.sampled_from(SHAPES), max_size=3),
    holes=st.integers(0, 2),
)
def test_rows_of_any_mode_and_shape_come_back(
    seed: int, mode: TargetMode, vocab: int, kind: str, shapes: list[str], holes: int
) -> None:
    rng = np.random.default_rng(seed)
    spec = replace(TARGETS[mode], entropy=False, temperatures=())
    parts = [empty_targets(holes)]
    for shape in shapes:
        parts += [sparse(rng, whole_rows(rng, shape, 3, vocab), spec), empty_targets(holes)]
    targets = concatenate(parts)
    if spec.has_sampled and targets.exact is None:
        targets = replace(targets, exact=targets.counts)
    tokens = rng.integers(0, vocab, len(targets)).astype(np.uint32)
    check_round_trip(targets, tokens, spec, make_codebook(kind, rng, vocab, mode), vocab)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(KINDS),
    shape=st.sampled_from(SHAPES),
    counts=st.lists(st.sampled_from((1, 2, 7, 8, 9, 10, 17, 40, VOCAB - 1, VOCAB)), min_size=1, max_size=8),
)
def test_rows_of_any_length_come_back(seed: int, kind: str, shape: str, counts: list[int]) -> None:
    """Around the eighth entry the streams change, and gaps go in pairs: odd and even rests both occur."""
    rng = np.random.default_rng(seed)
    spec = TargetSpec("topk", VOCAB)
    targets = sparse(rng, whole_rows(rng, shape, len(counts), VOCAB), spec, counts)
    tokens = rng.integers(0, VOCAB, len(counts)).astype(np.uint32)
    check_round_trip(targets, tokens, spec, make_codebook(kind, rng, VOCAB, "topk"), VOCAB)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
def test_a_vocabulary_beyond_16_bits_comes_back(mode: TargetMode, kind: str) -> None:
    rng = np.random.default_rng(4)
    spec = replace(TARGETS[mode], entropy=False, temperatures=())
    counts = [1, 8, 9, 17] if mode == "topk" else None
    targets = sparse(rng, whole_rows(rng, "random", 4, WIDE), spec, counts)
    targets = replace(targets, ids=WIDE - 1 - targets.ids)
    tokens = np.array([0, WIDE - 1, 65_535, 65_536], np.uint32)
    check_round_trip(targets, tokens, spec, make_codebook(kind, rng, WIDE, mode), WIDE)


def test_a_row_of_a_whole_wide_vocabulary_comes_back() -> None:
    rng = np.random.default_rng(5)
    spec = TargetSpec("topk", WIDE)
    targets = sparse(rng, whole_rows(rng, "random", 1, WIDE), spec)
    assert len(targets.ids) == WIDE and np.isneginf(targets.log_tail[0])
    check_round_trip(targets, np.zeros(1, np.uint32), spec, make_codebook("lists", rng, WIDE, "topk"), WIDE)


def test_values_down_to_the_lowest_need_wide_pairs() -> None:
    """Gaps of more than 255 levels would be cut to a byte each in 16-bit pairs."""
    rng = np.random.default_rng(6)
    spec = TargetSpec("topk", VOCAB)
    lowest = np.array([-1e-6, *np.full(9, -30.0), LOWEST_LOGPROB, LOWEST_LOGPROB], np.float32)
    targets = SparseTargets(
        np.array([0, 12]), rng.permutation(VOCAB)[:12].astype(np.uint32), lowest, np.array([-13.8], np.float32)
    )
    packed = check_round_trip(targets, np.zeros(1, np.uint32), spec, plain_codebook(VOCAB), VOCAB)
    assert packed.levels > 256 and packed.rest_gap.dtype == np.uint32 == pair_dtype(packed.levels)
    with pytest.raises(InputError, match="below -700"):
        lower = replace(targets, logprobs=np.append(lowest[:-1], np.float32(-700.1)))
        encode_rows(lower, np.zeros(1, np.uint32), spec, plain_codebook(VOCAB))


@pytest.mark.parametrize("first", [-1e-7, -0.5, -6.0, -15.0, -40.0, -80.0])
def test_a_tiny_head_keeps_its_mass(first: float) -> None:
    """The tail is then all but 0 in log: only odds can tell it from a row without exact entries."""
    logprobs = np.array([first, first - 1.0], np.float32)
    head = log_sum(logprobs.astype(np.float64))
    logprobs = (logprobs - max(head, 0.0)).astype(np.float32)
    left = np.log1p(-np.exp(min(head, -1e-7)))
    targets = SparseTargets(np.array([0, 2]), np.array([4, 2], np.uint32), logprobs, np.array([left], np.float32))
    check_round_trip(targets, np.zeros(1, np.uint32), TargetSpec("topk", 2), plain_codebook(5), 5)


@pytest.mark.parametrize("log_tail", [-1e-3, -1.0, -20.0, -100.0, -500.0])
def test_tails_of_any_size_keep_their_relative_precision(log_tail: float) -> None:
    logprob = np.log(-np.expm1(log_tail))
    targets = SparseTargets(
        np.array([0, 1]),
        np.array([1], np.uint32),
        np.array([min(logprob, -0.0)], np.float32),
        np.array([log_tail], np.float32),
    )
    check_round_trip(targets, np.zeros(1, np.uint32), TargetSpec("topk", 2), plain_codebook(5), 5)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    sharpness=st.sampled_from((0.0, 0.3, 1.0, 3.0, 8.0, 30.0)),
    k=st.sampled_from((4, 32, 200, VOCAB)),
    step=st.sampled_from((0.01, 0.04, 0.1)),
)
def test_divergence_stays_below_what_the_grid_promises(seed: int, sharpness: float, k: int, step: float) -> None:
    """grid.py: step**2 / 12. Half a level in expectation, so over rows that are all alike it may be three times it."""
    rng = np.random.default_rng(seed)
    spec = TargetSpec("topk", k, step=step)
    targets = random_rows(rng, 200, spec, sharpness=sharpness)
    tokens = np.zeros(200, np.uint32)
    codebook = plain_codebook(VOCAB)
    decoded = decode_rows(encode_rows(targets, tokens, spec, codebook), tokens, spec, codebook, "rows")
    error = measure_error(targets, decoded, VOCAB, "rows")
    p = np.exp(targets.logprobs.astype(np.float64))
    direct = (p * (targets.logprobs.astype(np.float64) - decoded.logprobs)).sum()
    held = np.isfinite(targets.log_tail)
    tail, stored = targets.log_tail[held].astype(np.float64), decoded.log_tail[held].astype(np.float64)
    direct += (np.exp(tail) * (tail - stored)).sum()
    assert error.kl == pytest.approx(max(direct / 200, 0.0), abs=2e-7)
    assert error.kl <= step**2 / 12 + RESOLUTION**2 / 32 + 1e-6


def test_a_finer_step_costs_less() -> None:
    rng = np.random.default_rng(8)
    kl = []
    for step in (0.02, 0.08, 0.32):
        spec = TargetSpec("topk", 64, step=step, tail_step=step)
        targets = random_rows(rng, 300, spec)
        tokens = np.zeros(300, np.uint32)
        codebook = plain_codebook(VOCAB)
        decoded = decode_rows(encode_rows(targets, tokens, spec, codebook), tokens, spec, codebook, "rows")
        kl.append(measure_error(targets, decoded, VOCAB, "rows").kl)
    assert 0 < 4 * kl[0] < kl[1] < kl[2] / 4


def test_a_changed_entry_is_not_the_same_row() -> None:
    """measure_error is what stands between a driver that lies and a commit."""
    rng = np.random.default_rng(9)
    targets = random_rows(rng, 4, TargetSpec("topk", 6))
    ids = targets.ids.copy()
    ids[7] = next(i for i in range(VOCAB) if i not in ids[6:12])
    twice = targets.ids.copy()
    twice[8] = twice[7]
    moved = SparseTargets(targets.offsets + np.array([0, 0, 1, 0, 0]), targets.ids, targets.logprobs, targets.log_tail)
    for other in (replace(targets, ids=ids), replace(targets, ids=twice), moved, targets.rows(0, 3)):
        with pytest.raises(IntegrityError, match="not what was written"):
            measure_error(targets, other, VOCAB, "rows")
    assert measure_error(targets, targets, VOCAB, "rows").max_abs_error == 0


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    mode=st.sampled_from(MODES),
    kind=st.sampled_from(KINDS),
    reach=st.sampled_from((2, 16, VOCAB, 2**16 - 1, 2**32 - 1)),
    share=st.sampled_from((0.01, 0.3, 1.0)),
)
def test_random_numbers_in_the_streams_never_name_an_id_that_is_not(
    seed: int, mode: TargetMode, kind: str, reach: int, share: float
) -> None:
    """Checksums come first, but whatever passes them must not be followed out of an array."""
    rng = np.random.default_rng(seed)
    spec = replace(TARGETS[mode], entropy=False, temperatures=())
    targets = random_rows(rng, 6, spec)
    tokens = rng.integers(0, VOCAB, 6).astype(np.uint32)
    codebook = make_codebook(kind, rng, VOCAB, mode)
    packed = encode_rows(targets, tokens, spec, codebook)
    streams = {}
    for name in ("first_code", "first_gap", "rest_code", "rest_gap", "sampled_code"):
        values = getattr(packed, name)
        noise = rng.integers(0, min(reach, np.iinfo(values.dtype).max), len(values), endpoint=True)
        streams[name] = np.where(rng.uniform(size=len(values)) < share, noise, values).astype(values.dtype)
    tail = rng.integers(-(2**15), 2**15, 6).astype(np.int16)
    damaged = replace(packed, **streams, tail=tail, levels=int(rng.integers(1, packed.levels + 1)))
    try:
        decoded = decode_rows(damaged, tokens, spec, codebook, "rows")
    except IntegrityError as error:
        assert str(error).startswith("rows: ")
        return
    assert np.array_equal(decoded.offsets, targets.offsets)
    assert int(decoded.ids.max(initial=0)) < VOCAB


def test_a_token_outside_the_codebook_is_refused() -> None:
    rng = np.random.default_rng(10)
    spec = replace(TARGETS["sampled"], temperatures=())
    targets = random_rows(rng, 3, spec)
    tokens = np.array([1, 2, 3], np.uint32)
    codebook = make_codebook("by_token", rng, VOCAB, "sampled")
    packed = encode_rows(targets, tokens, spec, codebook)
    with pytest.raises(IntegrityError, match="rows: holds codes"):
        decode_rows(packed, np.array([1, VOCAB, 3], np.uint32), spec, codebook, "rows")


@given(
    st.lists(st.one_of(st.just(float("nan")), st.floats(-1023.875, 0, width=32, allow_subnormal=False)), max_size=50)
)
def test_token_logprobs_come_back_within_half_a_unit(values: list[float]) -> None:
    logprobs = np.array(values, np.float32)
    decoded = decode_logprobs(encode_logprobs(logprobs))
    assert decoded.dtype == np.float32
    assert np.array_equal(np.isnan(decoded), np.isnan(logprobs))
    asked = ~np.isnan(logprobs)
    assert np.abs(decoded[asked] - logprobs[asked]).max(initial=0.0) <= RESOLUTION / 2 + 1e-4


def test_a_token_logprob_below_the_last_reads_as_the_last() -> None:
    found = decode_logprobs(encode_logprobs(np.array([-2000.0, -np.inf, -0.0, np.nan], np.float32)))
    assert found[:2].tolist() == [-SURPRISAL_LIMIT * RESOLUTION] * 2
    assert found[2] == 0 and np.isnan(found[3])


def test_broken_codebooks_are_refused() -> None:
    rng = np.random.default_rng(11)
    sound = make_codebook("lists", rng, VOCAB, "topk")
    sound.validate()
    order = sound.order.copy()
    order[0] = order[1]
    twice, outside, lists = sound.table.copy(), sound.table.copy(), sound.list_of.copy()
    twice[-1, 0] = twice[-1, 5]
    outside[0, 3] = VOCAB
    lists[7] = len(sound.table)
    broken = {
        "the order must name": replace(sound, order=order),
        "names an id twice": replace(sound, table=twice),
        "outside the vocabulary": replace(sound, table=outside),
        "must name a list": replace(sound, list_of=lists),
        "the table must be": replace(sound, table=sound.table[:0]),
    }
    for message, codebook in broken.items():
        with pytest.raises(InputError, match=message):
            codebook.validate()


def structured_rows(
    rng: np.random.Generator, rows: int, spec: TargetSpec, strength: float
) -> tuple[SparseTargets, npt.NDArray[np.uint32]]:
    """What follows token t is near 7 * t, the more so the greater `strength` is; 40 contexts occur."""
    tokens = rng.integers(0, 40, rows)
    distance = (np.arange(VOCAB) - 7 * tokens[:, None]) % VOCAB
    # Which of the neighbours leads is the same for a context, so that the first entry tells it too.
    logits = strength * (8.0 * np.exp(-distance / 8.0) - np.minimum(distance, 60) / 20.0)
    return sparse(rng, log_softmax(logits + rng.normal(size=(rows, VOCAB))), spec), tokens.astype(np.uint32)


@pytest.mark.parametrize("mode", ["topk", "threshold", "sampled"])
def test_lists_are_learned_where_contexts_tell_what_follows(mode: TargetMode) -> None:
    rng = np.random.default_rng(12)
    spec = replace(TARGETS[mode], entropy=False, temperatures=())
    rows, tokens = structured_rows(rng, 2400, spec, 1.0)
    learned = learn_codebook(rows.rows(0, 1600), tokens[:1600], spec, VOCAB)
    learned.validate()
    assert learned.table.shape[1] > 0 and learned.by_token == (mode == "sampled")
    unseen = rows.rows(1600, 2400)
    saved = code_bytes(unseen, tokens[1600:], spec, learned)
    assert saved < 0.9 * code_bytes(unseen, tokens[1600:], spec, plain_codebook(VOCAB))
    check_round_trip(unseen.rows(0, 50), tokens[1600:1650], spec, learned, VOCAB)


def test_frequencies_are_learned_where_only_they_tell() -> None:
    rng = np.random.default_rng(13)
    spec = TargetSpec("topk", 16)
    common = np.zeros(VOCAB)
    common[rng.permutation(VOCAB)] = -1.5 * np.log(np.arange(1, VOCAB + 1))
    rows = sparse(rng, log_softmax(common + rng.normal(size=(2400, VOCAB))), spec)
    tokens = rng.integers(0, VOCAB, 2400).astype(np.uint32)
    learned = learn_codebook(rows.rows(0, 1600), tokens[:1600], spec, VOCAB)
    assert not learned.is_plain
    unseen = rows.rows(1600, 2400)
    assert code_bytes(unseen, tokens[1600:], spec, learned) < 0.95 * code_bytes(
        unseen, tokens[1600:], spec, plain_codebook(VOCAB)
    )


@pytest.mark.parametrize("mode", ["topk", "sampled"])
def test_plain_ids_are_kept_where_nothing_is_to_be_learned(mode: TargetMode) -> None:
    rng = np.random.default_rng(14)
    spec = replace(TARGETS[mode], entropy=False, temperatures=())
    rows = random_rows(rng, 1600, spec)
    tokens = rng.integers(0, VOCAB, 1600).astype(np.uint32)
    assert learn_codebook(rows, tokens, spec, VOCAB).is_plain


@pytest.mark.parametrize("mode", ["topk", "sampled"])
@pytest.mark.parametrize("strength", [0.05, 0.2, 0.5])
def test_a_learned_codebook_never_makes_unseen_rows_larger(mode: TargetMode, strength: float) -> None:
    rng = np.random.default_rng(15)
    spec = replace(TARGETS[mode], entropy=False, temperatures=())
    rows, tokens = structured_rows(rng, 2400, spec, strength)
    learned = learn_codebook(rows.rows(0, 1600), tokens[:1600], spec, VOCAB)
    unseen = rows.rows(1600, 2400)
    plain = code_bytes(unseen, tokens[1600:], spec, plain_codebook(VOCAB))
    assert code_bytes(unseen, tokens[1600:], spec, learned) <= plain


@pytest.mark.parametrize("rows", [0, 1, 3])
@pytest.mark.parametrize("mode", MODES)
def test_a_codebook_can_be_learned_from_next_to_nothing(mode: TargetMode, rows: int) -> None:
    """The first unit of a store may be a handful of empty documents."""
    spec = replace(TARGETS[mode], entropy=False, temperatures=())
    targets = random_rows(np.random.default_rng(16), rows, spec)
    learned = learn_codebook(targets, np.zeros(rows, np.uint32), spec, VOCAB)
    learned.validate()
    check_round_trip(targets, np.zeros(rows, np.uint32), spec, learned, VOCAB)
