"""Permutations that are computed place by place are permutations, and all of them are equally likely."""

from itertools import permutations
from math import factorial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.examples.permutation import SMALL, permute, sorted_permutation, splitmix64


def tables(n: int, count: int, seed: int = 0) -> np.ndarray:
    """Permutations of n values by `count` keys, int64 [count, n]."""
    keys = splitmix64(np.arange(count, dtype=np.uint64) + np.uint64(seed << 32))
    places = permute(np.tile(np.arange(n), count), np.full(n * count, n), np.repeat(keys, n))
    return places.reshape(count, n)


def deviation(counts: np.ndarray) -> float:
    """Chi-squared of counts that should be equal, as standard deviations from its mean."""
    expected = counts.sum() / counts.size
    freedom = counts.size - 1
    return float((((counts - expected) ** 2).sum() / expected - freedom) / np.sqrt(2 * freedom))


@settings(deadline=None)
@given(sizes=st.lists(st.integers(1, 300), min_size=1, max_size=5), key=st.integers(0, 2**64 - 1))
def test_each_value_has_a_place_of_its_own(sizes: list[int], key: int) -> None:
    """Of several sizes in one call. Would catch a value that is permuted within the domain of another one."""
    values = np.concatenate([np.arange(n) for n in sizes])
    keys = np.repeat(np.arange(len(sizes), dtype=np.uint64) ^ np.uint64(key), sizes)
    places = permute(values, np.repeat(sizes, sizes), keys)
    for n, own in zip(sizes, np.split(places, np.cumsum(sizes)[:-1]), strict=True):
        assert np.array_equal(np.sort(own), np.arange(n))


@pytest.mark.parametrize("n", [2, 5, 10**6, 10**9, 10**12 + 7])
def test_a_place_does_not_depend_on_the_others(n: int) -> None:
    values = np.linspace(0, n - 1, min(n, 50)).astype(np.int64)
    keys = np.full(len(values), 9, np.uint64)
    together = permute(values, np.full(len(values), n), keys)
    alone = [int(permute(values[i : i + 1], np.array([n]), keys[:1])[0]) for i in range(len(values))]
    assert together.tolist() == alone and len(set(alone)) == len(values)
    assert min(alone) >= 0 and max(alone) < n


@pytest.mark.parametrize("n", [2, 3, 5, 6, 7, 10, 16, 17, SMALL - 1, SMALL, 100])
def test_places_and_pairs_of_places_are_equally_likely(n: int) -> None:
    """With 8 rounds for every size, 5 and 6 values are 60 to 100 standard deviations off."""
    count = 20_000
    places = tables(n, count, seed=n)
    single = np.array([np.bincount(places[:, value], minlength=n) for value in range(n)])
    assert np.abs([deviation(counts) for counts in single]).max() < 6
    for first, second in ((0, 1), (0, n - 1), (n // 2, n // 2 - 1)):
        pairs = np.bincount(places[:, first] * n + places[:, second], minlength=n * n)
        is_possible = ~np.eye(n, dtype=bool).ravel()
        assert not pairs[~is_possible].any()
        assert n == 2 or deviation(pairs[is_possible]) < 5


@pytest.mark.parametrize("n", [3, 4, 5])
def test_all_permutations_are_equally_likely(n: int) -> None:
    """Would catch a network that reaches only the even ones, or some of them more often."""
    order = {table: number for number, table in enumerate(permutations(range(n)))}
    counts = np.bincount([order[tuple(table)] for table in tables(n, 12_000).tolist()], minlength=factorial(n))
    assert deviation(counts) < 5


def test_permutations_are_frozen() -> None:
    """A change here would silently reorder every run that resumes."""
    assert tables(8, 2).tolist() == [[6, 0, 5, 7, 3, 2, 1, 4], [7, 4, 2, 0, 5, 6, 1, 3]]
    values = np.array([0, 1, 999_999])
    assert permute(values, np.full(3, 10**6), np.full(3, 7, np.uint64)).tolist() == [905443, 356198, 954434]
    assert sorted_permutation(8, 7, 3).tolist() == [2, 1, 7, 6, 3, 4, 0, 5]
