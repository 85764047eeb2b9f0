"""The values that a stored log-probability can take: fine where mass is, coarser far below.

The KL divergence that rounding causes is about sum(p * spacing(p)**2) / 24. A spacing of `step` down to p = 1 / k, and
growing as 1 / sqrt(k * p) below it, keeps that under step**2 / 12 for any row: the entries above 1 / k give at most
step**2 / 24, and the k entries below it, step**2 / (24 * k) each. `tail_step` bounds the spacing, so the greatest error
of a value is half of it (and what the shift of its row adds).
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from cache.errors import InputError

# Below this no float64 tells a probability from 0 after a sum with anything; such entries are not stored.
LOWEST_LOGPROB = -700.0
# Levels are uint16.
MOST_LEVELS = 1 << 16


@lru_cache(maxsize=16)
def level_grid(step: float, tail_step: float, k: int) -> npt.NDArray[np.float32]:
    """Log-probabilities of the levels, float32 [levels], falling from 0 to below LOWEST_LOGPROB.

    k: entries of a row at most; 0 where rows have none.
    """
    values = [0.0]
    k = max(k, 1)
    while values[-1] > LOWEST_LOGPROB:
        # exp(60) times any step is beyond any tail_step, and a float.
        growth = max(1.0, float(np.exp(min(-values[-1] / 2, 60.0))) / k**0.5)
        values.append(values[-1] - min(max(tail_step, step), step * growth))
        if len(values) > MOST_LEVELS:
            raise InputError(
                f"steps of {step} to {tail_step} nats make more than {MOST_LEVELS:,} levels; raise tail_step"
            )
    grid = np.array(values, np.float32)
    grid.setflags(write=False)
    return grid
