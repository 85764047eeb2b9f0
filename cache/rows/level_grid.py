"""The values that a stored log-probability can take: a fine grid where the mass is, a coarser one far below.

Rounding causes a KL divergence of about sum(p * spacing(p)**2) / 24. The spacing is `step` down to p = 1 / k and grows
as 1 / sqrt(k * p) below. This keeps the divergence under step**2 / 12 for any row: entries above 1 / k contribute at
most step**2 / 24 together, and each of the k entries below step**2 / (24 * k). `tail_step` limits the spacing, so the
largest error of a value is half of it, plus the shift of its row.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from cache.errors import InputError

# A probability below exp of this disappears in any float64 sum. Such entries are not stored.
LOWEST_LOGPROB = -700.0
# Levels are uint16.
MAX_LEVELS = 1 << 16


@lru_cache(maxsize=16)
def level_grid(step: float, tail_step: float, k: int) -> npt.NDArray[np.float32]:
    """Log-probabilities of the levels, float32 [levels], descending from 0 to below LOWEST_LOGPROB.

    k: maximum number of entries of a row; 0 if rows have none. Raises InputError if there are more than MAX_LEVELS.
    """
    values = [0.0]
    k = max(k, 1)
    while values[-1] > LOWEST_LOGPROB:
        # exp(60) times any step exceeds any tail_step, and does not overflow.
        growth = max(1.0, float(np.exp(min(-values[-1] / 2, 60.0))) / k**0.5)
        values.append(values[-1] - min(max(tail_step, step), step * growth))
        if len(values) > MAX_LEVELS:
            raise InputError(
                f"steps of {step} to {tail_step} nats make more than {MAX_LEVELS:,} levels; raise tail_step"
            )
    grid = np.array(values, np.float32)
    grid.setflags(write=False)
    return grid
