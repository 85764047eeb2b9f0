"""Bands of ranks: entries of similar rank have similar codes and gaps, so each band has streams of its own.

The first band has a number for each gap. In the others a number is a pair of gaps (Cantor's pairing function): half as
many numbers to decode, and pairs with the same sum, which are about equally likely, are neighbours.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

# First rank of each band. A reader takes those with which a part was written.
EDGES = (0, 8, 24, 64)
# Pairs below this are looked up.
TABLE_PAIRS = 4096


def band_edges(max_entries: int) -> tuple[int, ...]:
    """First rank of each band that rows of at most `max_entries` exact entries use. There is always one band."""
    return tuple(edge for edge in EDGES if edge < max(max_entries, 1))


def band_counts(exact: npt.NDArray[np.int64], edges: tuple[int, ...]) -> list[npt.NDArray[np.int64]]:
    """Number of exact entries of each row in each band, int64 [n] a band."""
    ends = [*edges[1:], np.iinfo(np.int64).max]
    return [np.clip(exact, edge, end) - edge for edge, end in zip(edges, ends, strict=True)]


def gap_counts(counts: list[npt.NDArray[np.int64]]) -> list[npt.NDArray[np.int64]]:
    """Number of gaps or pairs of gaps of each row in each band, int64 [n] a band. counts: those of band_counts."""
    return [counts[0], *((each + 1) // 2 for each in counts[1:])]


def gap_dtype(levels: int) -> np.dtype[np.unsignedinteger]:
    """Type of the pairs of gaps of a row: the two gaps together are at most `levels` - 1."""
    return np.dtype(np.uint16 if levels * (levels + 1) // 2 <= np.iinfo(np.uint16).max else np.uint32)


@lru_cache(maxsize=1)
def pair_table() -> npt.NDArray[np.uint16]:
    """The two gaps of each pair below TABLE_PAIRS, uint16 [TABLE_PAIRS]: the first in the low half of the bits."""
    pairs = np.arange(TABLE_PAIRS)
    totals = ((np.sqrt(8 * pairs + 1) - 1) / 2).astype(np.int64)
    second = pairs - totals * (totals + 1) // 2
    return np.asarray((totals - second) | second << 8, np.uint16)
