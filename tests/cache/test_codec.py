"""Rounding is bounded, and the measured error is the true one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.codec import decode_gaps, encode_gaps, quantisation_error
from cache.errors import InputError
from cache.targets import SparseTargets, concatenate, empty_targets
from tests.conftest import random_targets


def round_trip(targets: SparseTargets, step: float) -> np.ndarray:
    return decode_gaps(encode_gaps(targets, step), targets.offsets, targets.log_tail, step)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(0, 9),
    k=st.integers(1, 24),
    holes=st.integers(0, 3),
    step=st.floats(0.001, 0.5),
)
def test_error_is_at_most_one_step(seed: int, rows: int, k: int, holes: int, step: float) -> None:
    rng = np.random.default_rng(seed)
    targets = concatenate([empty_targets(holes), random_targets(rng, rows, k, vocab=24), empty_targets(holes)])
    decoded = round_trip(targets, step)
    assert np.abs(decoded - targets.logprobs).max(initial=0) <= step + 1e-5


def test_decoded_rows_are_distributions() -> None:
    targets = random_targets(np.random.default_rng(1), 50)
    decoded = round_trip(targets, 0.05)
    mass = np.add.reduceat(np.exp(decoded.astype(np.float64)), targets.offsets[:-1]) + np.exp(targets.log_tail)
    assert np.allclose(mass, 1, atol=1e-5)


def test_kl_of_quantisation_follows_the_formula() -> None:
    targets = random_targets(np.random.default_rng(2), 2000, k=200, vocab=200)
    error = quantisation_error(targets, round_trip(targets, 0.05))
    assert error.kl == pytest.approx(0.05**2 / 24, rel=0.35)
    assert 0 < error.max_abs_error <= 0.05


def test_whole_vocabulary_keeps_all_mass() -> None:
    targets = random_targets(np.random.default_rng(3), 5, k=20, vocab=20)
    assert np.isneginf(targets.log_tail).all()
    assert np.allclose(np.exp(round_trip(targets, 0.05)).reshape(5, 20).sum(axis=1), 1, atol=1e-5)


def test_a_gap_that_does_not_fit_is_refused() -> None:
    row = SparseTargets(
        np.array([0, 2]), np.array([1, 2], np.uint32), np.array([-0.1, -4000], np.float32), np.array([-3], np.float32)
    )
    with pytest.raises(InputError, match="below its neighbour"):
        encode_gaps(row, 0.05)
