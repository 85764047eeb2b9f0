"""Random numbers that depend on an example's key and a position only, never on the batch or the engine."""

import numpy as np
import numpy.typing as npt

from cache.rows.spec import TargetSpec

# A Philox4x64 counter value yields four 64-bit numbers.
NUMBERS_PER_COUNTER = 4


def row_uniforms(targets: TargetSpec, key: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the random numbers that a reduction needs for `rows` of the example with `key`.

    rows: int64 [n], positions in ascending order. Returns float64 [n, numbers] in [0, 1): one number per draw
    (sampled), one (threshold), or none (topk, nucleus).

    Independent draws use independent numbers. Systematic draws use evenly spaced numbers with one random offset per row
    (Madow 1949): a token of probability p is then drawn floor(draws * p) or ceil(draws * p) times, and draws * p times
    in expectation.
    """
    if len(rows) == 0:
        start, stop = 0, 0
    else:
        start, stop = int(rows[0]), int(rows[-1]) + 1
    if targets.mode == "sampled" and targets.systematic:
        offsets = philox_uniforms(key, start, stop, 1)[rows - start]
        return (offsets + np.arange(targets.draws)) / targets.draws
    per_row = {"sampled": targets.draws, "threshold": 1}.get(targets.mode, 0)
    return philox_uniforms(key, start, stop, per_row)[rows - start]


def philox_uniforms(key: str, start: int, stop: int, per_row: int) -> npt.NDArray[np.float64]:
    """Return uniform numbers in [0, 1), float64 [stop - start, per_row], for positions start:stop of one example.

    Uses Philox4x64 (Salmon et al. 2011). Its key is the 128-bit key of the example; its counter is the position.
    """
    if per_row == 0 or stop <= start:
        return np.zeros((max(stop - start, 0), per_row))
    counters = -(-per_row // NUMBERS_PER_COUNTER)
    bits = np.random.Philox(key=int(key, 16)).advance(start * counters)
    numbers = np.random.Generator(bits).random((stop - start, counters * NUMBERS_PER_COUNTER))
    return numbers[:, :per_row]


def sampling_seed(key: str, seed: int) -> int:
    """Return a 31-bit seed for the generated text of one example. It does not depend on the unit or the batch."""
    return (int(key[:8], 16) ^ seed) & 0x7FFFFFFF
