"""Random numbers that belong to a place: the same for an example's key and position, whatever else is in the batch."""

import numpy as np
import numpy.typing as npt

from cache.rows.spec import TargetSpec

# One counter of Philox gives so many numbers.
PER_COUNTER = 4


def points_of(targets: TargetSpec, key: str, start: int, stop: int) -> npt.NDArray[np.float64]:
    """Where the draws of positions start:stop fall, as shares of the mass; float64 [stop - start, points] in [0, 1).

    As many points as draws, one for a threshold, none otherwise. Independent draws fall anywhere; systematic ones at
    even distances from one number a row (Madow 1949): an id of probability p is then drawn floor or ceil of draws * p
    times, as often as p says on average.
    """
    if targets.mode == "sampled" and targets.systematic:
        return (uniforms(key, start, stop, 1) + np.arange(targets.draws)) / targets.draws
    return uniforms(key, start, stop, {"sampled": targets.draws, "threshold": 1}.get(targets.mode, 0))


def uniforms(key: str, start: int, stop: int, per_row: int) -> npt.NDArray[np.float64]:
    """Uniform numbers in [0, 1), float64 [stop - start, per_row], of positions start:stop of the example with `key`.

    Philox4x64 (Salmon et al. 2011) with the key's 128 bits as its key and the position as its counter.
    """
    if per_row == 0 or stop <= start:
        return np.zeros((max(stop - start, 0), per_row))
    counters = -(-per_row // PER_COUNTER)
    bits = np.random.Philox(key=int(key, 16)).advance(start * counters)
    drawn = np.random.Generator(bits).random((stop - start, counters * PER_COUNTER))
    return drawn[:, :per_row]


def sampling_seed(key: str, seed: int) -> int:
    """A seed of 31 bits for what a teacher writes to one example, the same whatever the unit or batch it is in."""
    return (int(key[:8], 16) ^ seed) & 0x7FFFFFFF
