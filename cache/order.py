"""Which example comes when: a pure function, so a run resumes from one integer and any world size agrees.

The stream of examples is epoch after epoch, each a permutation of the same n. A permutation sorts the examples by a
hash of (seed, epoch, index), which no library version changes.
"""

import numpy as np
import numpy.typing as npt


def splitmix64(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Mix each of the values, uint64 to uint64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom numbers")."""
    with np.errstate(over="ignore"):
        mixed = values + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))


def permutation(n: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Order of n examples in an epoch, int64 [n]."""
    root = splitmix64(splitmix64(np.array([seed], np.uint64)) ^ np.uint64(epoch))
    return np.argsort(splitmix64(np.arange(n, dtype=np.uint64) ^ root), kind="stable")


def examples_at(start: int, count: int, n: int, seed: int) -> npt.NDArray[np.int64]:
    """Examples start..start + count of the endless stream over n examples, int64 [count]."""
    positions = np.arange(start, start + count)
    epochs = positions // n
    picked = np.empty(count, np.int64)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        picked[here] = permutation(n, seed, int(epoch))[positions[here] % n]
    return picked
