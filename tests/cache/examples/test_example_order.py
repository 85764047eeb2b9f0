"""The order of examples is a function of its arguments and nothing else: each example once an epoch, well mixed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.examples.example_order import BLOCK_TOKENS, FULL, Shuffle, default_window, examples_at

SHUFFLES = st.builds(Shuffle, st.integers(1, 40), st.integers(1, 12))


@settings(deadline=None)
@given(n=st.integers(1, 300), shuffle=SHUFFLES, seed=st.integers(0, 2**40), epoch=st.integers(0, 10**6))
def test_every_epoch_shows_every_example_once(n: int, shuffle: Shuffle, seed: int, epoch: int) -> None:
    assert np.array_equal(np.sort(examples_at(n * epoch, n, n, seed, shuffle)), np.arange(n))


@settings(deadline=None)
@given(
    n=st.integers(1, 50),
    shuffle=SHUFFLES,
    seed=st.integers(0, 99),
    start=st.integers(0, 500),
    cut=st.integers(1, 60),
)
def test_a_stream_may_be_cut_anywhere(n: int, shuffle: Shuffle, seed: int, start: int, cut: int) -> None:
    """Would catch a position whose example depends on where a request begins."""
    whole = examples_at(start, 120, n, seed, shuffle)
    parts = [examples_at(start, cut, n, seed, shuffle), examples_at(start + cut, 120 - cut, n, seed, shuffle)]
    assert np.array_equal(whole, np.concatenate(parts))


@settings(deadline=None)
@given(n=st.integers(1, 600), shuffle=SHUFFLES, seed=st.integers(0, 99), epoch=st.integers(0, 10**9))
def test_a_window_is_made_of_whole_blocks(n: int, shuffle: Shuffle, seed: int, epoch: int) -> None:
    """Would catch a block that is read in two windows, and windows that are longer than their memory."""
    order = examples_at(n * epoch, n, n, seed, shuffle)
    ends = [0]
    while ends[-1] < n:
        ends.append(shuffle.window_end(n * epoch + ends[-1], n) - n * epoch)
        examples = np.sort(order[ends[-2] : ends[-1]])
        assert shuffle.window_end(n * epoch + ends[-1] - 1, n) == n * epoch + ends[-1], "the last position knows it too"
        assert len(examples) <= shuffle.block * shuffle.window
        runs = 1 + int(np.count_nonzero(np.diff(examples) != 1))
        assert runs <= -(-len(examples) // min(shuffle.block, n)) + 1, "one more if a block goes round the end"
    assert ends[-1] == n
    sizes = np.diff(ends)
    assert len(sizes) == 1 or sizes.min() + 2 * shuffle.block > sizes.max(), "no short window at the end"


def test_epochs_seeds_and_windows_differ() -> None:
    for shuffle in (FULL, Shuffle(5, 4), Shuffle(200, 1)):
        assert not np.array_equal(examples_at(0, 100, 100, 0, shuffle), examples_at(100, 100, 100, 0, shuffle))
        assert not np.array_equal(examples_at(0, 100, 100, 0, shuffle), examples_at(0, 100, 100, 1, shuffle))
    windows = [examples_at(20 * window, 20, 100, 0, Shuffle(5, 4)) for window in range(5)]
    assert len({tuple(np.argsort(window)) for window in windows}) == 5


@pytest.mark.parametrize("shuffle", [FULL, Shuffle(7, 4), Shuffle(10, 3), Shuffle(1, 8), Shuffle(90, 1)])
def test_every_example_is_equally_likely_at_every_position(shuffle: Shuffle) -> None:
    """97 examples: no block size divides them. Would catch a last, shorter block that is always made of the same."""
    n, epochs = 97, 4000
    orders = examples_at(0, n * epochs, n, 0, shuffle).reshape(epochs, n)
    counts = np.array([np.bincount(orders[:, position], minlength=n) for position in range(n)])
    expected = epochs / n
    worst = np.abs(counts - expected).max() / np.sqrt(expected)
    assert worst < 6, "of 9,409 counts, the largest is expected at 4"


def test_blocks_of_one_example_and_one_window_give_every_pair_equally_often() -> None:
    """A store that fits the window is shuffled as a whole."""
    n, epochs = 12, 12_000
    for shuffle in (FULL, Shuffle(5, 3), Shuffle(1, 4)):
        orders = examples_at(0, n * epochs, n, 0, shuffle).reshape(epochs, n)
        distance = (orders[:, 1] - orders[:, 0]) % n
        counts = np.bincount(distance, minlength=n)[1:]
        expected = epochs / (n - 1)
        assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_a_batch_has_as_few_neighbours_as_its_window_says() -> None:
    """Two examples of a batch are of one block with the probability (block - 1) / (examples of the window - 1).

    So with the defaults an example has about 1/4 others of its block in its batch, and fewer in small batches.
    """
    n, batch = 50_000_000, 256
    for shuffle, mates_of_one in ((Shuffle.of(np.full(9, 18), default_window(batch)), 0.25), (Shuffle(56, 64), 4)):
        size = shuffle.window_end(0, n)
        examples = examples_at(0, size, n, 0, shuffle)
        block = np.empty(size, np.int64)
        by_place = np.argsort(examples)
        block[by_place] = np.cumsum(np.diff(examples[by_place], prepend=-9) != 1)
        pairs = 0.0
        for step in block[: size // batch * batch].reshape(-1, batch):
            counts = np.bincount(step)
            pairs += float((counts * (counts - 1)).sum()) / 2 / (size // batch)
        expected = batch * (batch - 1) / 2 * (shuffle.block - 1) / (size - 1)
        assert pairs == pytest.approx(expected, rel=0.1)
        assert 2 * pairs / batch == pytest.approx(mates_of_one, rel=0.1)


@pytest.mark.parametrize(
    "tokens, window, expected",
    [
        ([18], 1 << 20, Shuffle(57, 1024)),
        ([500, 501], 1 << 20, Shuffle(2, 1024)),
        ([5000], 1 << 20, Shuffle(1, 1024)),
        ([1], BLOCK_TOKENS, Shuffle(1024, 1)),
        ([120], BLOCK_TOKENS - 1, Shuffle(9, 1)),
        ([700], 1 << 20, Shuffle(1, 1024)),
        ([0], 1 << 20, Shuffle(1024, 1024)),
    ],
)
def test_blocks_are_about_two_chunks_long(tokens: list[int], window: int, expected: Shuffle) -> None:
    assert Shuffle.of(np.array(tokens), window) == expected


@pytest.mark.parametrize("batch, tokens", [(1, 1 << 20), (64, 1 << 20), (256, 1 << 20), (4096, 1 << 24)])
def test_the_window_grows_with_the_batch(batch: int, tokens: int) -> None:
    assert default_window(batch) == tokens


def test_the_stream_is_frozen() -> None:
    """A change here would silently reorder every run that resumes."""
    assert examples_at(8 * 3 + 5, 6, 8, 7).tolist() == [4, 2, 3, 7, 2, 1]
    assert examples_at(10**15, 4, 1000, 7).tolist() == [942, 722, 572, 233]
    assert examples_at(10**15, 4, 100_000, 7, Shuffle(30, 100)).tolist() == [3980, 28443, 76801, 28709]
