"""KeySet: keys that have been met, 16 bytes each and little more."""

import numpy as np
import numpy.typing as npt

from cache.store.segments.keys import KEY, Array, is_among, is_first, sorting_order


class KeySet:
    """A growing set of keys in sorted runs. Runs of similar size are merged, so that a key is moved log(n) times."""

    def __init__(self) -> None:
        self._runs: list[Array] = []

    def __len__(self) -> int:
        return sum(map(len, self._runs))

    def add(self, keys: Array) -> npt.NDArray[np.bool_]:
        """Add keys, void16 [n]. Returns which of them are new, bool [n]; of equal ones among them only the first is."""
        new = is_first(keys) & ~self.contains(keys)
        run = keys[new]
        run = run[sorting_order(run)]
        while self._runs and len(self._runs[-1]) <= 2 * len(run):
            run = np.concatenate([self._runs.pop(), run])
            run = run[sorting_order(run)]
        if len(run):
            self._runs.append(run)
        return new

    def contains(self, keys: Array) -> npt.NDArray[np.bool_]:
        """Which keys are in the set, bool [n]."""
        found = np.zeros(len(keys), bool)
        for run in self._runs:
            found |= is_among(keys, run)
        return found

    def count_in(self, sorted_keys: Array) -> int:
        """How many keys of the set are among these sorted ones."""
        return sum(int(is_among(run, sorted_keys).sum()) for run in self._runs)


EMPTY = np.zeros(0, KEY)
