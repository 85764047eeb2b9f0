"""The order of examples: a pure function of the seed, so a run resumes from one integer and all ranks agree.

The stream of examples is one epoch after another, each a permutation of the same n examples. A permutation sorts the
examples by a hash of (seed, epoch, index), so it does not depend on the version of a library. A mixture takes examples
from such a stream of each source.
"""

import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from cache.errors import InputError

# Number of positions over which the shares of a mixture are exact. Changing it changes the order.
BLOCK = 1024
# Used in place of a source's number in the hash that orders the sources within a block. No source has this number.
BLOCK_ORDER = 1 << 63


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


class Permutations:
    """The permutations that were used last, so that not every step sorts all examples again. Safe between threads.

    Two epochs of each stream are kept, because steps that are read ahead may be in the next one: 8 bytes an example, or
    16 above 2^31 examples.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[int, int], OrderedDict[int, npt.NDArray[np.signedinteger]]] = {}
        self._lock = threading.Lock()

    def of_epoch(self, n: int, seed: int, epoch: int) -> npt.NDArray[np.signedinteger]:
        """The order of n examples in an epoch, as `permutation` gives it; int32 [n] where that is wide enough."""
        with self._lock:  # of several threads, only one sorts
            epochs = self._kept.setdefault((n, seed), OrderedDict())
            if epoch not in epochs:
                epochs[epoch] = permutation(n, seed, epoch).astype(np.int32 if n <= 1 << 31 else np.int64)
                if len(epochs) > 2:
                    epochs.popitem(last=False)
            epochs.move_to_end(epoch)
            return epochs[epoch]


def examples_at(
    start: int, count: int, n: int, seed: int, permutations: Permutations | None = None
) -> npt.NDArray[np.int64]:
    """Examples at positions start..start + count of the endless stream over n examples, int64 [count].

    permutations: those of earlier calls; without them, all examples are sorted.
    """
    return _stream(np.arange(start, start + count), n, seed, permutations or Permutations())


def mixture_at(
    start: int,
    count: int,
    sizes: Sequence[int],
    weights: Sequence[float],
    seed: int,
    permutations: Permutations | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Sources and examples at positions start..start + count of the endless mixture, int64 [count] each.

    sizes: number of examples of each source. weights: relative shares, rounded to 1 in BLOCK positions (`block_counts`)
    and exact over every block. The i-th position of a source has the i-th example of the source's own stream; with a
    single source this is `examples_at`. permutations: those of earlier calls; without them, all examples of all sources
    are sorted. Raises InputError if `block_counts` does, or if a source has no examples.
    """
    if not len(sizes) or len(sizes) != len(weights):
        raise InputError(
            f"a mixture needs sources and a weight for each; there are {len(sizes)} sources and {len(weights)} weights"
        )
    for source, size in enumerate(sizes):
        if size < 1:
            raise InputError(f"source {source} of the mixture has {size} examples; leave it out")
    counts = block_counts(weights)
    # For each position of an unshuffled block: its source, and its rank among the positions of that source.
    source_of = np.repeat(np.arange(len(counts)), counts)
    rank_of = np.arange(BLOCK) - np.repeat(np.cumsum(counts) - counts, counts)
    blocks = range(start // BLOCK, -(-(start + count) // BLOCK))
    sources = np.empty((len(blocks), BLOCK), np.int64)
    picks = np.empty((len(blocks), BLOCK), np.int64)
    order_seed = _seed_of(seed, BLOCK_ORDER)
    for i, block in enumerate(blocks):
        sources[i] = source_of[permutation(BLOCK, order_seed, block)]
        picks[i, np.argsort(sources[i], kind="stable")] = rank_of + block * counts[source_of]
    first = start - blocks.start * BLOCK
    selected_sources, selected_picks = sources.ravel()[first : first + count], picks.ravel()[first : first + count]
    examples = np.empty(count, np.int64)
    permutations = permutations or Permutations()
    for source in np.unique(selected_sources):
        here = selected_sources == source
        examples[here] = _stream(selected_picks[here], sizes[source], _seed_of(seed, int(source)), permutations)
    return selected_sources, examples


def block_counts(weights: Sequence[float]) -> npt.NDArray[np.int64]:
    """Number of positions of each source in every block, int64 [sources], with the sum BLOCK, by largest remainder.

    Ties go to the earlier source. Raises InputError if a weight is not positive, or if a source gets no position.
    """
    for source, weight in enumerate(weights):
        if not 0 < weight < math.inf:
            raise InputError(f"weights of a mixture must be positive numbers; source {source} has {weight}")
    total = math.fsum(weights)
    quotas = np.array([weight / total * BLOCK for weight in weights])
    counts: npt.NDArray[np.int64] = np.floor(quotas).astype(np.int64)
    counts[np.argsort(counts - quotas, kind="stable")[: BLOCK - counts.sum()]] += 1
    for source, weight in enumerate(weights):
        if not counts[source]:
            raise InputError(
                f"source {source} has a share of {weight / total:.1e} and would never be used: shares are rounded to 1 "
                f"in {BLOCK}; raise its weight or leave it out"
            )
    return counts


def _stream(picks: npt.NDArray[np.int64], n: int, seed: int, permutations: Permutations) -> npt.NDArray[np.int64]:
    """Examples at the ascending positions `picks` of the endless stream over n examples, int64 [picks]."""
    epochs = picks // n
    examples = np.empty(len(picks), np.int64)
    edges = [0, *(np.flatnonzero(np.diff(epochs)) + 1).tolist(), len(picks)]
    for first, last in pairwise(edges):
        if first < last:
            examples[first:last] = permutations.of_epoch(n, seed, int(epochs[first]))[picks[first:last] % n]
    return examples


def _seed_of(seed: int, number: int) -> int:
    """Seed of a source's stream. Source 0 has the mixture's seed, so a mixture of one source equals that source."""
    if number == 0:
        return seed
    # The complement of the number: the number itself would give the hash of an epoch of source 0.
    mixed = splitmix64(splitmix64(np.array([seed], np.uint64)) ^ ~np.uint64(number))
    return int(mixed[0])
