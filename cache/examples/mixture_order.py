"""The order of examples of a mixture: a pure function of the seed, as that of one source is (example_order).

The i-th position of a source has the i-th example of the source's own stream.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cache.errors import InputError
from cache.examples.example_order import FULL, Shuffle, examples_of
from cache.examples.permutation import sorted_permutation, splitmix64

# Number of positions over which the shares of a mixture are exact. Changing it changes the order.
PERIOD = 1024
# Used in place of a source's number in the hash that orders the sources within a period. No source has this number.
PERIOD_ORDER = 1 << 63


def mixture_at(
    start: int,
    count: int,
    sizes: Sequence[int],
    weights: Sequence[float],
    seed: int,
    shuffles: Sequence[Shuffle] | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Sources and examples at positions start..start + count of the endless mixture, int64 [count] each.

    sizes: number of examples of each source. weights: relative shares, rounded to 1 in PERIOD positions
    (`period_counts`) and exact over every period. shuffles: of each source; by default every order is equally likely.
    With a single source this is `examples_at`.
    Raises InputError if `period_counts` does, or if a source has no examples.
    """
    if not len(sizes) or len(sizes) != len(weights):
        raise InputError(
            f"a mixture needs sources and a weight for each; there are {len(sizes)} sources and {len(weights)} weights"
        )
    for source, size in enumerate(sizes):
        if size < 1:
            raise InputError(f"source {source} of the mixture has {size} examples; leave it out")
    counts = period_counts(weights)
    # For each position of an unshuffled period: its source, and its rank among the positions of that source.
    source_of = np.repeat(np.arange(len(counts)), counts)
    rank_of = np.arange(PERIOD) - np.repeat(np.cumsum(counts) - counts, counts)
    periods = range(start // PERIOD, -(-(start + count) // PERIOD))
    sources = np.empty((len(periods), PERIOD), np.int64)
    picks = np.empty((len(periods), PERIOD), np.int64)
    order_seed = _seed_of(seed, PERIOD_ORDER)
    for i, period in enumerate(periods):
        sources[i] = source_of[sorted_permutation(PERIOD, order_seed, period)]
        picks[i, np.argsort(sources[i], kind="stable")] = rank_of + period * counts[source_of]
    first = start - periods.start * PERIOD
    selected_sources, selected_picks = sources.ravel()[first : first + count], picks.ravel()[first : first + count]
    examples = np.empty(count, np.int64)
    for source in np.unique(selected_sources):
        here = selected_sources == source
        shuffle = FULL if shuffles is None else shuffles[source]
        examples[here] = examples_of(selected_picks[here], sizes[source], _seed_of(seed, int(source)), shuffle)
    return selected_sources, examples


def mixture_end(position: int, sizes: Sequence[int], weights: Sequence[float], shuffles: Sequence[Shuffle]) -> int:
    """A position, not far from where the window of the fastest source ends, behind `position`.

    The windows of several sources end at different positions. The fastest source is the one with the most examples in
    the mixture; its blocks are read once, and those of the others once or twice.
    """
    counts = period_counts(weights)
    source = int(np.argmax(counts))
    share = int(counts[source])
    pick = position * share // PERIOD
    end = shuffles[source].window_end(pick, sizes[source])
    return max(position + 1, -(-end * PERIOD // share))


def period_counts(weights: Sequence[float]) -> npt.NDArray[np.int64]:
    """Number of positions of each source in every period, int64 [sources], with the sum PERIOD, by largest remainder.

    Ties go to the earlier source. Raises InputError if a weight is not positive, or if a source gets no position.
    """
    for source, weight in enumerate(weights):
        if not 0 < weight < math.inf:
            raise InputError(f"weights of a mixture must be positive numbers; source {source} has {weight}")
    total = math.fsum(weights)
    quotas = np.array([weight / total * PERIOD for weight in weights])
    counts: npt.NDArray[np.int64] = np.floor(quotas).astype(np.int64)
    counts[np.argsort(counts - quotas, kind="stable")[: PERIOD - counts.sum()]] += 1
    for source, weight in enumerate(weights):
        if not counts[source]:
            raise InputError(
                f"source {source} has a share of {weight / total:.1e} and would never be used: shares are rounded to 1 "
                f"in {PERIOD}; raise its weight or leave it out"
            )
    return counts


def _seed_of(seed: int, number: int) -> int:
    """Seed of a source's stream. Source 0 has the mixture's seed, so a mixture of one source equals that source."""
    if number == 0:
        return seed
    # The complement of the number: the number itself would give the hash of an epoch of source 0.
    mixed = splitmix64(splitmix64(np.array([seed], np.uint64)) ^ ~np.uint64(number))
    return int(mixed[0])
