"""The order of a mixture is a function of its arguments and nothing else, and the shares of its sources are exact."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.errors import InputError
from cache.examples.example_order import FULL, Shuffle, examples_at
from cache.examples.mixture_order import PERIOD, mixture_at, mixture_end, period_counts

SOURCES = st.lists(st.tuples(st.integers(1, 60), st.floats(0.05, 9)), min_size=1, max_size=4)


@settings(deadline=None)
@given(sources=SOURCES, seed=st.integers(0, 2**40), start=st.integers(0, 3 * PERIOD), far=st.sampled_from([0, 10**14]))
def test_a_mixture_may_be_cut_anywhere(sources: list[tuple[int, float]], seed: int, start: int, far: int) -> None:
    """Catches state that leaks from one position to the next, and periods that depend on where a window begins."""
    sizes, weights = zip(*sources, strict=True)
    whole = mixture_at(far + start, 40, sizes, weights, seed)
    one_by_one = [mixture_at(far + start + i, 1, sizes, weights, seed) for i in range(0, 40, 3)]
    for part in (0, 1):
        assert whole[part][::3].tolist() == [int(position[part][0]) for position in one_by_one]


@settings(deadline=None, max_examples=30)
@given(sources=SOURCES, seed=st.integers(0, 2**40), period=st.integers(0, 10**9))
def test_shares_are_exact_in_every_period(sources: list[tuple[int, float]], seed: int, period: int) -> None:
    sizes, weights = zip(*sources, strict=True)
    chosen, _ = mixture_at(period * PERIOD, 2 * PERIOD, sizes, weights, seed)
    for half in (chosen[:PERIOD], chosen[PERIOD:]):
        counts = np.bincount(half, minlength=len(sizes))
        assert np.array_equal(counts, period_counts(weights))
        assert (np.abs(counts - np.array(weights) / sum(weights) * PERIOD) < 1).all()


def test_the_largest_remainders_take_what_rounding_leaves() -> None:
    assert period_counts([1, 1, 1]).tolist() == [342, 341, 341]
    assert period_counts([0.1, 0.2, 0.7]).tolist() == [102, 205, 717]


@settings(deadline=None, max_examples=30)
@given(sources=SOURCES, seed=st.integers(0, 2**40))
def test_a_source_repeats_nothing_within_its_epoch(sources: list[tuple[int, float]], seed: int) -> None:
    """Catches picks counted from the wrong period: an example would come twice before another comes once."""
    sizes, weights = zip(*sources, strict=True)
    chosen, examples = mixture_at(0, 3 * PERIOD, sizes, weights, seed)
    for source, size in enumerate(sizes):
        own = examples[chosen == source]
        epochs = own[: len(own) // size * size].reshape(-1, size)
        assert (np.sort(epochs, axis=1) == np.arange(size)).all()
        rest = own[epochs.size :]
        assert len(np.unique(rest)) == len(rest)
    assert np.array_equal(examples[chosen == 0], examples_at(0, int((chosen == 0).sum()), sizes[0], seed))


@settings(deadline=None)
@given(n=st.integers(1, 3000), seed=st.integers(0, 2**40), start=st.integers(0, 10**12), weight=st.floats(0.1, 9))
def test_a_mixture_of_one_is_its_stream(n: int, seed: int, start: int, weight: float) -> None:
    """Runs of one source resume bit by bit, whichever function they call."""
    sources, examples = mixture_at(start, 50, [n], [weight], seed)
    assert not sources.any()
    assert np.array_equal(examples, examples_at(start, 50, n, seed))


def test_periods_sources_and_seeds_differ() -> None:
    chosen, examples = mixture_at(0, 2 * PERIOD, [500, 500], [1, 1], 5)
    assert not np.array_equal(chosen[:PERIOD], chosen[PERIOD:])
    assert not np.array_equal(examples[chosen == 0][:500], examples[chosen == 1][:500])
    assert not np.array_equal(chosen, mixture_at(0, 2 * PERIOD, [500, 500], [1, 1], 6)[0])
    runs = np.diff(np.flatnonzero(np.diff(chosen)))
    assert runs.max() < 30  # a period whose sources came one after the other would have a run of 512


def test_order_of_a_mixture_is_frozen() -> None:
    """A change here would silently reorder every mixture that resumes."""
    sources, examples = mixture_at(10**12 + 1014, 20, [1000, 70, 3], [0.5, 0.3, 0.2], 7)
    assert sources.tolist() == [0, 2, 0, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1]
    assert examples.tolist() == [211, 0, 197, 45, 49, 12, 58, 95, 27, 56, 14, 46, 26, 638, 59, 23, 29, 65, 50, 15]


@pytest.mark.parametrize(
    "sizes, weights, message",
    [
        ([3, 3], [1, 0], "positive numbers; source 1 has 0"),
        ([3, 3], [-1, 2], "positive numbers; source 0 has -1"),
        ([3, 3], [1, float("nan")], "source 1 has nan"),
        ([3, 3], [1, float("inf")], "source 1 has inf"),
        ([3, 3], [1, 1e-6], "source 1 has a share of 1.0e-06 and would never be used"),
        ([3, 0], [1, 1], "source 1 of the mixture has 0 examples"),
        ([3, 3], [1], "there are 2 sources and 1 weights"),
        ([], [], "needs sources"),
    ],
)
def test_impossible_mixtures_are_refused(sizes: list[int], weights: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        mixture_at(0, 4, sizes, weights, 0)


@settings(deadline=None, max_examples=30)
@given(sources=st.lists(st.tuples(st.integers(1, 500), st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=3))
def test_the_end_of_a_window_is_behind_its_position(sources: list[tuple[int, int, int]]) -> None:
    """Of the source with the most examples, one window is read at a time. Would catch a stretch without an end."""
    sizes, blocks, windows = zip(*sources, strict=True)
    shuffles = [Shuffle(*each) for each in zip(blocks, windows, strict=True)]
    weights = list(range(len(sizes), 0, -1))
    share = int(period_counts(weights)[0])
    position = 0
    for _ in range(20):
        end = mixture_end(position, sizes, weights, shuffles)
        assert end > position
        here = position * share // PERIOD
        assert end * share // PERIOD - here <= blocks[0] * windows[0] + 1
        position = end


def test_sources_are_shuffled_in_windows_of_their_own() -> None:
    """Would catch a source that is shuffled as another one is."""
    shuffles = [Shuffle(4, 2), FULL]
    chosen, examples = mixture_at(0, 200, [80, 40], [1, 1], 3, shuffles)
    for source, (size, seed_shuffle) in enumerate(zip([80, 40], shuffles, strict=True)):
        own = examples[chosen == source]
        if source == 0:
            assert own.tolist() == examples_at(0, len(own), size, 3, seed_shuffle).tolist()
        assert len(set(own[:size].tolist())) == size
