"""Draws estimate the full distribution, and depend on key and position only, not on batch or engine."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.rows.spec import TargetSpec
from teacher_serving.reduction.draws import NUMBERS_PER_COUNTER, philox_uniforms, sampling_seed
from tests.teacher_serving.reduction.dense import VOCABULARIES, WAYS, dense, random_logits, reduced

EACH_WAY = pytest.mark.parametrize("way", WAYS)
KEYS = st.integers(0, 2**128 - 1).map(lambda number: f"{number:032x}")
REPEATS = 20_000
# Greatest distance of a mean from its expectation, in standard errors; of a thousand means one lies beyond 3.3.
ERRORS = 5.0
LARGEST_UNIFORM = math.nextafter(1.0, 0.0)


@given(KEYS, st.integers(0, 10**6), st.lists(st.integers(0, 9), min_size=1, max_size=4), st.integers(0, 11))
def test_any_split_of_the_positions_gives_the_same_numbers(
    key: str, start: int, sizes: list[int], per_row: int
) -> None:
    edges = np.cumsum([start, *sizes])
    parts = [philox_uniforms(key, int(a), int(b), per_row) for a, b in pairwise(edges)]
    whole = philox_uniforms(key, start, int(edges[-1]), per_row)
    assert whole.shape == (sum(sizes), per_row)
    assert np.array_equal(np.concatenate(parts), whole)


@given(KEYS, KEYS, st.integers(0, 10**6))
def test_another_key_or_position_gives_other_numbers(one: str, other: str, position: int) -> None:
    here = philox_uniforms(one, position, position + 1, NUMBERS_PER_COUNTER)
    assert not np.isin(here, philox_uniforms(one, position + 1, position + 2, NUMBERS_PER_COUNTER)).any()
    assert one == other or not np.isin(here, philox_uniforms(other, position, position + 1, NUMBERS_PER_COUNTER)).any()


@pytest.mark.parametrize("per_row", [1, 4, 50])
def test_numbers_are_uniform_and_positions_independent(per_row: int) -> None:
    drawn = philox_uniforms("0123456789abcdef" * 2, 0, 20_000, per_row)
    n = drawn.size
    assert drawn.min() >= 0 and drawn.max() < 1
    # Kolmogorov and Smirnov: beyond 1.95 / sqrt(n) once in a thousand times.
    distance = np.abs(np.sort(drawn.ravel()) - (np.arange(n) + 0.5) / n).max()
    assert distance < 1.95 / math.sqrt(n)
    neighbours = [(drawn[:-1, 0], drawn[1:, 0])] + [(drawn[:, 0], drawn[:, i]) for i in range(1, per_row)]
    for one, other in neighbours:
        assert abs(np.corrcoef(one, other)[0, 1]) < 4 / math.sqrt(len(one))


@given(KEYS, st.integers(0, 2**40))
def test_a_seed_is_one_that_every_engine_takes(key: str, seed: int) -> None:
    assert 0 <= sampling_seed(key, seed) < 2**31
    assert sampling_seed(key, seed) != sampling_seed(key, seed + 1)


def estimates(way: str, targets: TargetSpec, logits_seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth [vocabulary], estimates [repeats, vocabulary] of one row under different numbers, and exact entries."""
    row = random_logits(1, 100, spread=2.0, seed=logits_seed)
    rows = reduced(way, row.expand(REPEATS, 100).contiguous(), targets).targets
    rows.validate(100, "rows")
    found = np.zeros((REPEATS, 100))
    found[rows.row_of_entry, rows.ids] = np.exp(rows.logprobs.astype(np.float64))
    return np.exp(dense(row)[0]), found, rows.exact_counts


@EACH_WAY
@pytest.mark.parametrize("threshold", [0.5, 0.05, 0.013])
def test_estimates_of_a_threshold_average_to_the_distribution(way: str, threshold: float) -> None:
    p, found, exact = estimates(way, TargetSpec("threshold", threshold=threshold))
    head = p >= threshold
    assert (exact == head.sum()).all()
    assert np.abs(found[:, head] - p[head]).max(initial=0) < 1e-6
    # An id below the threshold is there with probability p / threshold, and then counts as the threshold.
    error = np.sqrt(p[~head] * (threshold - p[~head]) / REPEATS)
    assert (np.abs(found[:, ~head].mean(axis=0) - p[~head]) < ERRORS * error).all()
    assert set(np.unique(found[:, ~head].round(6))) <= {0.0, round(threshold, 6)}
    assert np.abs(found.sum(axis=1) - 1).max() < threshold + 1e-6


@EACH_WAY
@pytest.mark.parametrize("draws", [1, 20, 200])
def test_estimates_of_draws_average_to_the_distribution(way: str, draws: int) -> None:
    p, found, exact = estimates(way, TargetSpec("sampled", draws=draws))
    assert not exact.any()
    error = np.sqrt(p * (1 - p) / (REPEATS * draws))
    assert (np.abs(found.mean(axis=0) - p) < ERRORS * error).all()
    # Draws are independent: no less and no more scattered than that.
    likely = p > 0.02
    scatter = found[:, likely].var(axis=0) / (p * (1 - p) / draws)[likely]
    assert (np.abs(scatter - 1) < 0.1).all()
    times = found * draws
    assert np.abs(times - times.round()).max() < 1e-3 and (times.round().sum(axis=1) == draws).all()


@EACH_WAY
@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("spread", [1e-3, 3.0, 30.0])
@pytest.mark.parametrize("number", [0.0, 0.5, LARGEST_UNIFORM])
def test_draws_are_in_range_for_extreme_random_numbers(way: str, vocabulary: int, spread: float, number: float) -> None:
    logits = random_logits(30, vocabulary, spread, seed=2)
    for threshold in (0.5, 0.1, 0.004):
        targets = TargetSpec("threshold", threshold=threshold)
        rows = reduced(way, logits, targets, numbers=np.full((30, 1), number)).targets
        rows.validate(vocabulary, "rows")
        assert rows.counts.max() <= math.ceil(1 / threshold) + 1
        mass = np.bincount(rows.row_of_entry, np.exp(rows.logprobs.astype(np.float64)), minlength=30)
        assert np.abs(mass - 1).max() <= threshold + 1e-5
    targets = TargetSpec("sampled", draws=7)
    rows = reduced(way, logits, targets, numbers=np.full((30, 7), number)).targets
    rows.validate(vocabulary, "rows")
    assert (rows.counts == 1).all() and np.abs(rows.logprobs).max() == 0
    ends = {0.0: 0, LARGEST_UNIFORM: vocabulary - 1}
    if number in ends and spread < 1:
        assert (rows.ids == ends[number]).all()


@pytest.mark.parametrize(
    "targets", [TargetSpec("threshold", threshold=0.02), TargetSpec("sampled", draws=50)], ids=lambda t: t.mode
)
def test_both_reductions_draw_alike(targets: TargetSpec) -> None:
    logits = random_logits(200, 1000)
    one, other = (reduced(way, logits, targets).targets for way in WAYS)
    # Sums differ in their last digits, which moves a draw that falls between two ids.
    differing = [
        i for i in range(200) if set(one.rows(i, i + 1).ids.tolist()) != set(other.rows(i, i + 1).ids.tolist())
    ]
    assert len(differing) <= 2


@EACH_WAY
def test_systematic_draws_are_unbiased_and_all_but_exact(way: str) -> None:
    """Each id is drawn floor or ceil of draws * p times, and on average as often as p says; others vary more."""
    targets = TargetSpec("sampled", draws=20, systematic=True)
    truth, found, _ = estimates(way, targets)
    times = found * targets.draws
    assert np.abs(times - np.rint(times)).max() < 1e-4
    assert (np.abs(times - truth * targets.draws) < 1 + 1e-3).all()
    assert np.allclose(found.sum(axis=1), 1, atol=1e-5)
    noise = np.sqrt(np.maximum(found.var(axis=0), 1e-12) / len(found))
    assert (np.abs(found.mean(axis=0) - truth) < 5 * noise + 1e-4).all()
    _, independent, _ = estimates(way, TargetSpec("sampled", draws=20))
    assert found.var(axis=0).sum() < 0.7 * independent.var(axis=0).sum()
