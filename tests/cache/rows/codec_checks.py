"""Distributions of every shape, codebooks of every kind, and all that the codec promises for encoded rows."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from cache.parts.codebook_learning import frequency_codebook, list_codebook
from cache.rows.codebook import Codebook, plain_codebook
from cache.rows.codec import ODDS_LIMIT, RESOLUTION, EncodedRows, decode_rows, encode_rows, measure_error
from cache.rows.level_grid import LOWEST_LOGPROB
from cache.rows.sparse_targets import SparseTargets
from cache.rows.spec import TargetMode, TargetSpec
from tests.cache.rows.rows import TARGETS, VOCAB, id_sets, log_softmax, sparse

KINDS = ("plain", "frequency", "lists", "by_token")
SHAPES = ("random", "equal", "one_hot", "deep", "sharp", "flat")


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
) -> EncodedRows:
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


def structured_rows(
    rng: np.random.Generator, rows: int, spec: TargetSpec, strength: float
) -> tuple[SparseTargets, npt.NDArray[np.uint32]]:
    """What follows token t is near 7 * t, the more so the greater `strength` is; 40 contexts occur."""
    tokens = rng.integers(0, 40, rows)
    distance = (np.arange(VOCAB) - 7 * tokens[:, None]) % VOCAB
    # Which of the neighbours leads is the same for a context, so that the first entry tells it too.
    logits = strength * (8.0 * np.exp(-distance / 8.0) - np.minimum(distance, 60) / 20.0)
    return sparse(rng, log_softmax(logits + rng.normal(size=(rows, VOCAB))), spec), tokens.astype(np.uint32)
