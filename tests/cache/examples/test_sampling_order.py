"""The order of examples is a function of its arguments and nothing else."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.errors import InputError
from cache.examples import example_order
from cache.examples.example_order import BLOCK, Permutations, block_counts, examples_at, mixture_at, permutation


@given(n=st.integers(1, 300), seed=st.integers(0, 2**40), epoch=st.integers(0, 10**6))
def test_every_epoch_shows_every_example_once(n: int, seed: int, epoch: int) -> None:
    assert np.array_equal(np.sort(permutation(n, seed, epoch)), np.arange(n))


@given(n=st.integers(1, 50), seed=st.integers(0, 99), start=st.integers(0, 500), cut=st.integers(1, 60))
def test_a_stream_may_be_cut_anywhere(n: int, seed: int, start: int, cut: int) -> None:
    whole = examples_at(start, 120, n, seed)
    assert np.array_equal(
        whole, np.concatenate([examples_at(start, cut, n, seed), examples_at(start + cut, 120 - cut, n, seed)])
    )


def test_epochs_and_seeds_differ() -> None:
    assert not np.array_equal(permutation(100, 0, 0), permutation(100, 0, 1))
    assert not np.array_equal(permutation(100, 0, 0), permutation(100, 1, 0))


def test_order_of_format_1_is_frozen() -> None:
    """A change here would silently reorder every run that resumes."""
    assert permutation(8, 7, 3).tolist() == [2, 1, 7, 6, 3, 4, 0, 5]


def test_the_stream_of_format_1_is_frozen() -> None:
    assert examples_at(8 * 3 + 5, 6, 8, 7).tolist() == [4, 0, 5, 5, 1, 4]
    assert examples_at(10**15, 4, 1000, 7).tolist() == [573, 945, 861, 409]


SOURCES = st.lists(st.tuples(st.integers(1, 60), st.floats(0.05, 9)), min_size=1, max_size=4)


@settings(deadline=None)
@given(sources=SOURCES, seed=st.integers(0, 2**40), start=st.integers(0, 3 * BLOCK), far=st.sampled_from([0, 10**14]))
def test_a_mixture_may_be_cut_anywhere(sources: list[tuple[int, float]], seed: int, start: int, far: int) -> None:
    """Catches state that leaks from one position to the next, and blocks that depend on where a window begins."""
    sizes, weights = zip(*sources, strict=True)
    whole = mixture_at(far + start, 40, sizes, weights, seed)
    one_by_one = [mixture_at(far + start + i, 1, sizes, weights, seed) for i in range(40)]
    for part in (0, 1):
        assert whole[part].tolist() == [int(position[part][0]) for position in one_by_one]


@settings(deadline=None, max_examples=30)
@given(sources=SOURCES, seed=st.integers(0, 2**40), block=st.integers(0, 10**9))
def test_shares_are_exact_in_every_block(sources: list[tuple[int, float]], seed: int, block: int) -> None:
    sizes, weights = zip(*sources, strict=True)
    chosen, _ = mixture_at(block * BLOCK, 2 * BLOCK, sizes, weights, seed)
    for half in (chosen[:BLOCK], chosen[BLOCK:]):
        counts = np.bincount(half, minlength=len(sizes))
        assert np.array_equal(counts, block_counts(weights))
        assert (np.abs(counts - np.array(weights) / sum(weights) * BLOCK) < 1).all()


def test_the_largest_remainders_take_what_rounding_leaves() -> None:
    assert block_counts([1, 1, 1]).tolist() == [342, 341, 341]
    assert block_counts([0.1, 0.2, 0.7]).tolist() == [102, 205, 717]


@settings(deadline=None, max_examples=30)
@given(sources=SOURCES, seed=st.integers(0, 2**40))
def test_a_source_repeats_nothing_within_its_epoch(sources: list[tuple[int, float]], seed: int) -> None:
    """Catches picks counted from the wrong block: an example would come twice before another comes once."""
    sizes, weights = zip(*sources, strict=True)
    chosen, examples = mixture_at(0, 3 * BLOCK, sizes, weights, seed)
    for source, size in enumerate(sizes):
        own = examples[chosen == source]
        epochs = own[: len(own) // size * size].reshape(-1, size)
        assert (np.sort(epochs, axis=1) == np.arange(size)).all()
        rest = own[epochs.size :]
        assert len(np.unique(rest)) == len(rest)
    assert np.array_equal(examples[chosen == 0], examples_at(0, int((chosen == 0).sum()), sizes[0], seed))


@given(n=st.integers(1, 3000), seed=st.integers(0, 2**40), start=st.integers(0, 10**12), weight=st.floats(0.1, 9))
def test_a_mixture_of_one_is_its_stream(n: int, seed: int, start: int, weight: float) -> None:
    """Runs of one source resume bit by bit, whichever function they call."""
    sources, examples = mixture_at(start, 50, [n], [weight], seed)
    assert not sources.any()
    assert np.array_equal(examples, examples_at(start, 50, n, seed))


def test_blocks_sources_and_seeds_differ() -> None:
    chosen, examples = mixture_at(0, 2 * BLOCK, [500, 500], [1, 1], 5)
    assert not np.array_equal(chosen[:BLOCK], chosen[BLOCK:])
    assert not np.array_equal(examples[chosen == 0][:500], examples[chosen == 1][:500])
    assert not np.array_equal(chosen, mixture_at(0, 2 * BLOCK, [500, 500], [1, 1], 6)[0])
    runs = np.diff(np.flatnonzero(np.diff(chosen)))
    assert runs.max() < 30  # a block whose sources came one after the other would have a run of 512


def test_order_of_a_mixture_is_frozen() -> None:
    """A change here would silently reorder every mixture that resumes."""
    sources, examples = mixture_at(10**12 + 1014, 20, [1000, 70, 3], [0.5, 0.3, 0.2], 7)
    assert sources.tolist() == [0, 2, 0, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1]
    assert examples.tolist() == [734, 0, 650, 35, 61, 19, 3, 441, 9, 56, 65, 59, 51, 741, 715, 18, 42, 25, 7, 40]


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


@settings(deadline=None, max_examples=50)
@given(sources=SOURCES, starts=st.lists(st.integers(0, 5 * BLOCK), min_size=1, max_size=6), seed=st.integers(0, 9))
def test_kept_permutations_change_no_order(sources: list[tuple[int, float]], starts: list[int], seed: int) -> None:
    """In any order of requests. Would catch an epoch or a stream that is taken for another one."""
    sizes, weights = zip(*sources, strict=True)
    kept = Permutations()
    for start in starts:
        for of_seed in (seed, seed + 1):
            assert examples_at(start, 40, sizes[0], of_seed, kept).tolist() == (
                examples_at(start, 40, sizes[0], of_seed).tolist()
            )
            ours = mixture_at(start, 40, sizes, weights, of_seed, kept)
            expected = mixture_at(start, 40, sizes, weights, of_seed)
            assert all(np.array_equal(a, b) for a, b in zip(ours, expected, strict=True))


def test_an_epoch_is_sorted_once_for_all_steps_and_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch examples that are all sorted again at each step, by each thread, or where two epochs meet."""
    sorted_epochs: list[tuple[int, int, int]] = []

    def count(n: int, seed: int, epoch: int) -> np.ndarray:
        sorted_epochs.append((n, seed, epoch))
        return permutation(n, seed, epoch)

    monkeypatch.setattr(example_order, "permutation", count)
    kept = Permutations()
    with ThreadPoolExecutor(4) as pool:
        steps = list(pool.map(lambda step: examples_at(step * 8, 8, 100, 0, kept), range(25)))
    assert sorted_epochs == [(100, 0, 0), (100, 0, 1)]
    assert np.concatenate(steps).tolist() == [*permutation(100, 0, 0), *permutation(100, 0, 1)]
    for epoch in (0, 1, 2):  # whatever thread came last, epoch 0 is now the oldest
        kept.of_epoch(100, 0, epoch)
    assert len(sorted_epochs) == 3
    kept.of_epoch(100, 0, 1)
    assert len(sorted_epochs) == 3
    kept.of_epoch(100, 0, 0)
    assert len(sorted_epochs) == 4, "two epochs are kept"


def test_a_mixture_sorts_each_source_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sorted_sizes: list[int] = []

    def count(n: int, seed: int, epoch: int) -> np.ndarray:
        sorted_sizes.append(n)
        return permutation(n, seed, epoch)

    monkeypatch.setattr(example_order, "permutation", count)
    kept = Permutations()
    for step in range(20):
        mixture_at(step * 8, 8, [300, 500], [1.0, 1.0], 0, kept)
    assert sorted(n for n in sorted_sizes if n != BLOCK) == [300, 500]
