"""The order of examples is a function of its arguments and nothing else."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cache.order import examples_at, permutation


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
