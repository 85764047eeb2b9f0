"""Loops over entries, compiled by numba: validation, rounding, comparison, lists. Plain arrays in, plain arrays out.

They take a few nanoseconds per entry. In numpy every step would be a pass over memory.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np


def compiled(function: Callable[..., Any], **options: Any) -> Any:
    """Compile a function at its first call. The result is cached on disk if numba can write its cache."""
    try:
        return numba.njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:  # numba has no writable folder for its cache
        return numba.njit(nogil=True, **options)(function)


@compiled
def first_bad_row(offsets, ids, logprobs, exact, vocab_size, seen):
    """(row, reason) of the first invalid row, or (-1, 0). seen: int64 [vocab_size], all -1.

    Reasons: 1 id outside the vocabulary, 2 log-probability not finite or above 0, 3 not descending, 4 repeated id.
    """
    for row in range(len(offsets) - 1):
        start = offsets[row]
        for e in range(start, offsets[row + 1]):
            if ids[e] >= vocab_size:
                return row, 1
            if not np.isfinite(logprobs[e]) or logprobs[e] > 1e-3:
                return row, 2
            if e > start and e - start < exact[row] and logprobs[e] > logprobs[e - 1]:
                return row, 3
            if seen[ids[e]] == row:
                return row, 4
            seen[ids[e]] = row
    return -1, 0


@compiled
def band_totals(exact, begin, edges, codes, gaps):
    """Add the numbers of codes and of gaps of each band, in rows before `begin` and in the others, int64 [2, bands].

    edges: int64 [bands], first rank of each band. Gaps are in pairs but in the first band.
    """
    for row in range(len(exact)):
        part = 0 if row < begin else 1
        for band in range(len(edges)):
            end = exact[row] if band + 1 == len(edges) else min(exact[row], edges[band + 1])
            count = end - edges[band]
            if count <= 0:
                break
            codes[part, band] += count
            gaps[part, band] += count if band == 0 else (count + 1) >> 1


@compiled
def row_masses(offsets, exact, masses, total):
    """Write the sum of the masses of the exact entries of each row, float64 [n]. masses: of each entry."""
    for row in range(len(offsets) - 1):
        mass = 0.0
        for e in range(offsets[row], offsets[row] + exact[row]):
            mass += masses[e]
        total[row] = mass


@compiled
def quantise(offsets, exact, logprobs, middles, hints, scale, levels):
    """Write the nearest level of each exact entry. middles: boundaries between the levels, descending.

    hints[i]: level of the value -i / scale, from which the search for the level of a slightly lower value starts.
    """
    for row in range(len(offsets) - 1):
        for e in range(offsets[row], offsets[row] + exact[row]):
            value = logprobs[e]
            level = hints[min(np.int64(-value * scale), len(hints) - 1)] if value < 0 else 0
            while level < len(middles) and value < middles[level]:
                level += 1
            levels[e] = level


@compiled
def fill_lists(starts, ids, scores, order, general, longest, lists, list_start, placed):
    """Write each list but the first, which is empty: ids by descending score, up to the last id that was seen.

    ids, scores: the ids that occurred in the context of list l, at starts[l]:starts[l + 1], best first. Other ids have
    the scores `general`, in the sequence of `order`. longest: maximum length of a list. lists: ids, to write to, long
    enough for all; list_start: int64 [lists + 1], zeros, to write to. placed: int64 [vocabulary], all -1.
    """
    size = 0
    for number in range(1, len(list_start) - 1):
        seen, stop = starts[number], starts[number + 1]
        for i in range(seen, stop):
            placed[ids[i]] = number
        rank, end = 0, size + longest
        while seen < stop and size < end:
            while rank < len(order) and placed[order[rank]] == number:
                rank += 1
            if rank == len(order) or scores[seen] >= general[rank]:
                lists[size] = ids[seen]
                seen += 1
            else:
                lists[size] = order[rank]
                rank += 1
            size += 1
        list_start[number + 1] = size


@compiled
def compare(offsets, exact, ids, logprobs, masses, log_tail, other_ids, other_logprobs, other_log_tail, entry, owner):
    """(number of rows whose ids differ, largest error of an exact entry, sum of the rows' KL divergences), in nats.

    masses: exp(logprobs). Buffers: entry int64 [vocabulary], and owner int32 [vocabulary], all -1.
    """
    different_rows, max_error, total_kl = 0, np.float32(0), 0.0
    for row in range(len(offsets) - 1):
        start, stop = offsets[row], offsets[row + 1]
        for e in range(start, stop):
            entry[ids[e]] = e
            owner[ids[e]] = row
        same = True
        divergence = 0.0
        for e in range(start, stop):
            i = other_ids[e]
            if owner[i] != row:
                same = False
                break
            owner[i] = -1
            if e - start < exact[row]:
                error = logprobs[entry[i]] - other_logprobs[e]
                max_error = max(max_error, abs(error))
                divergence += masses[entry[i]] * error
        if not same:
            different_rows += 1
        elif exact[row] > 0:
            if np.isfinite(log_tail[row]):
                divergence += np.exp(log_tail[row]) * (log_tail[row] - other_log_tail[row])
            total_kl += divergence
    return different_rows, max_error, total_kl
