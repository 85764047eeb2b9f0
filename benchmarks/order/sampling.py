"""How fair a sample of a sorted store a step is."""

from typing import Any

import numpy as np
import numpy.typing as npt

from cache.examples.example_order import FULL, Shuffle, examples_at

EXAMPLES, TOPICS, STRETCH = 4_000_000, 100, 16
# Blocks of 30 examples, as of the demo's 34 tokens an example.
BLOCK, WINDOWS, BATCHES = 30, (16, 64, 256, 1024, 4096), (64, 256)


def measure_sampling(steps: int) -> list[dict[str, Any]]:
    """Standard deviations of the mean of a step, and of 16 steps, as ratios to those of the full shuffle.

    steps: in every case, taken from the windows of a whole epoch evenly. mates: of an example, how many others of its
    block are in its step, by expectation.
    """
    rng = np.random.default_rng(0)
    stores = {
        "sorted by length": np.sort(rng.lognormal(5.5, 0.8, EXAMPLES)),
        "sorted by topic": np.repeat(rng.standard_normal(TOPICS), EXAMPLES // TOPICS),
    }
    cases = []
    for name, values in stores.items():
        for batch in BATCHES:
            base = _deviations(values, batch, FULL, steps)
            for window in WINDOWS:
                shuffle = Shuffle(BLOCK, window)
                step, stretch = _deviations(values, batch, shuffle, steps)
                cases.append(
                    {
                        "store": name,
                        "batch": batch,
                        "block": BLOCK,
                        "window": window,
                        "step_ratio": step / base[0],
                        "stretch_ratio": stretch / base[1],
                        "mates": (batch - 1) * (BLOCK - 1) / (BLOCK * window - 1),
                    }
                )
    return cases


def _deviations(values: npt.NDArray[np.float64], batch: int, shuffle: Shuffle, steps: int) -> tuple[float, float]:
    """Standard deviation of the means of steps, and of the means of stretches of STRETCH steps in a row."""
    total = len(values) // batch
    firsts = np.linspace(0, total - STRETCH, max(2, steps // STRETCH)).astype(np.int64)
    means = np.array(
        [
            values[examples_at(int(first) * batch, batch * STRETCH, len(values), 0, shuffle)]
            .reshape(STRETCH, batch)
            .mean(1)
            for first in firsts
        ]
    )
    return float(means.std()), float(means.mean(axis=1).std())
