"""Rows encoded and decoded again: only the rounding of the grid is lost, for every shape of row."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.errors import InputError
from cache.rows.codebook import plain_codebook
from cache.rows.codec import RESOLUTION, SURPRISAL_LIMIT, decode_logprobs, encode_logprobs, encode_rows
from cache.rows.level_grid import LOWEST_LOGPROB
from cache.rows.rank_bands import gap_dtype
from cache.rows.sparse_targets import SparseTargets, concatenate, empty_targets
from cache.rows.spec import TargetMode, TargetSpec
from tests.cache.rows.codec_checks import KINDS, SHAPES, check_round_trip, log_sum, make_codebook, whole_rows
from tests.cache.rows.rows import MODES, TARGETS, VOCAB, sparse

WIDE = 70_000


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


def test_a_row_with_every_id_of_a_wide_vocabulary_comes_back() -> None:
    rng = np.random.default_rng(5)
    spec = TargetSpec("topk", WIDE)
    targets = sparse(rng, whole_rows(rng, "random", 1, WIDE), spec)
    assert len(targets.ids) == WIDE and np.isneginf(targets.log_tail[0])
    check_round_trip(targets, np.zeros(1, np.uint32), spec, make_codebook("lists", rng, WIDE, "topk"), WIDE)


def test_values_down_to_the_lowest_need_wide_pairs() -> None:
    """Pairs of large gaps are beyond the table, and beyond 16 bits."""
    rng = np.random.default_rng(6)
    spec = TargetSpec("topk", VOCAB)
    lowest = np.array([-1e-6, *np.full(9, -30.0), LOWEST_LOGPROB, LOWEST_LOGPROB], np.float32)
    targets = SparseTargets(
        np.array([0, 12]), rng.permutation(VOCAB)[:12].astype(np.uint32), lowest, np.array([-13.8], np.float32)
    )
    packed = check_round_trip(targets, np.zeros(1, np.uint32), spec, plain_codebook(VOCAB), VOCAB)
    assert packed.levels > 512 and packed.gaps.dtype == np.uint32 == gap_dtype(packed.levels)
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
