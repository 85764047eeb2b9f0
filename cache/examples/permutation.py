"""Permutations of 0..n - 1 that are computed at the wanted positions alone: no table, no sorting, no state.

Knows nothing of examples and epochs.
"""

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]

# The step between the states of splitmix64, an odd number near 2^64 divided by the golden ratio.
GOLDEN = 0x9E3779B97F4A7C15
# Rounds of the Feistel network. From 30 values on, 8 rounds pass all tests of uniformity. The hashes of a small network
# have few different inputs, so it needs more: with 8 rounds and 5 values, some pairs come more often than others.
ROUNDS, SMALL_ROUNDS, SMALL = 8, 24, 64


def splitmix64(values: Keys) -> Keys:
    """Mix each of the values, uint64 to uint64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom numbers")."""
    mixed = values + np.uint64(GOLDEN)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def permute(values: Numbers, sizes: Numbers, keys: Keys) -> Numbers:
    """The place of each value in a permutation of its own 0..size - 1, which its key selects; int64 [values].

    values: int64, 0 <= value < size. sizes: int64, below 2^53. keys: uint64. All three have the same length.

    This is the generalised Feistel cipher with cycle walking of Black and Rogaway 2002, "Ciphers with arbitrary finite
    domains". A value is a pair of a number below a and one below b, with a * b just above the size. Each round adds a
    hash of one of them to the other. A result that is no member of the domain is permuted again, until it is one.
    """
    results = np.empty_like(values)
    for rounds, has_rounds in ((ROUNDS, sizes >= SMALL), (SMALL_ROUNDS, sizes < SMALL)):
        walking = np.flatnonzero(has_rounds)
        places = values[walking]
        while len(walking):
            places = _encipher(places, sizes[walking], keys[walking], rounds)
            is_member = places < sizes[walking]
            results[walking[is_member]] = places[is_member]
            walking, places = walking[~is_member], places[~is_member]
    return results


def sorted_permutation(n: int, seed: int, number: int) -> Numbers:
    """A permutation of n items as a table, int64 [n]: the items, sorted by a hash. For a small n, or if all is used."""
    root = splitmix64(splitmix64(np.array([seed], np.uint64)) ^ np.uint64(number))
    order: Numbers = np.argsort(splitmix64(np.arange(n, dtype=np.uint64) ^ root), kind="stable")
    return order


def _encipher(values: Numbers, sizes: Numbers, keys: Keys, rounds: int) -> Numbers:
    """One pass through the network: a permutation of 0..a * b - 1 for each size and key."""
    a = np.ceil(np.sqrt(sizes)).astype(np.uint64)
    b = (sizes.astype(np.uint64) + a - np.uint64(1)) // a
    right, left = np.divmod(values.astype(np.uint64), a)
    for _ in range(0, rounds, 2):
        left = (left + splitmix64(right + keys) % a) % a
        keys = keys + np.uint64(GOLDEN)  # the hash of a round is a generator's output at a state of its own
        right = (right + splitmix64(left + keys) % b) % b
        keys = keys + np.uint64(GOLDEN)
    places: Numbers = (left + a * right).astype(np.int64)
    return places
