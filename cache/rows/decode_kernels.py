"""Compiled loops that turn codes and gaps into entries. cache/rows/codec.py describes the encoding.

Numbers are unsigned throughout, because numba wraps negative indices around. A code or level that is out of range is
reported, never followed: parts are verified before they are read, but an index must not leave its array in any case.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cache.rows.shared_kernels import compiled

ZERO, ONE, TWO, EIGHT = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(8)
LOW_BYTE = np.uint64(255)


class IdLists(NamedTuple):
    """A codebook for decoding: see Codebook."""

    listed: npt.NDArray[Any]
    list_start: npt.NDArray[np.int64]
    order: npt.NDArray[Any]
    list_of: npt.NDArray[np.uint32]
    by_token: bool


class InputStreams(NamedTuple):
    """The streams to decode, see EncodedRows.

    edges: uint64 [bands + 1], first rank of each band, and a number above all ranks. code_at, gap_at: uint64 [bands],
    where the codes and the gaps of each band start; they are moved on. pairs: those of pair_table.
    """

    codes: npt.NDArray[Any]
    gaps: npt.NDArray[Any]
    sampled: npt.NDArray[Any]
    edges: npt.NDArray[np.uint64]
    code_at: npt.NDArray[np.uint64]
    gap_at: npt.NDArray[np.uint64]
    pairs: npt.NDArray[np.uint16]


class Grid(NamedTuple):
    """Log-probability and probability of each level, float32 [levels]."""

    logprobs: npt.NDArray[np.float32]
    masses: npt.NDArray[np.float32]


class Entries(NamedTuple):
    """Ids and log-probabilities of all entries, to write to."""

    ids: npt.NDArray[np.uint32]
    logprobs: npt.NDArray[np.float32]


@compiled
def decode_entries(exact, sampled, tokens, lists, streams, grid, log_head, sampled_logprobs, out):
    """Write all entries of all rows, exact ones first, shifted so that these sum to exp(log_head).

    exact, sampled: entries of each kind [n]. tokens: uint32 [n], those that the rows follow. lists: IdLists.
    streams: InputStreams. grid: Grid. log_head: float32 [n]. sampled_logprobs: float32 [sampled entries]. out: Entries.
    Returns False if a code or level is out of range.
    """
    # Local names: numba counts references whenever an array is taken out of a tuple, which is slow within the loops.
    listed, list_start, order, list_of = lists.listed, lists.list_start, lists.order, lists.list_of
    codes, gaps, pairs, edges = streams.codes, streams.gaps, streams.pairs, streams.edges
    code_at, gap_at = streams.code_at, streams.gap_at
    grid_logprobs, masses, ids, logprobs = grid.logprobs, grid.masses, out.ids, out.logprobs
    size, levels, bands = np.uint64(len(order)), np.uint64(len(grid_logprobs)), len(code_at)
    e, s = ZERO, ZERO
    for row in range(len(exact)):
        count, draws = np.uint64(exact[row]), np.uint64(sampled[row])
        if count + draws == ZERO:
            continue
        begin, width = ZERO, ZERO
        if lists.by_token:
            if np.uint64(tokens[row]) >= size:
                return False
            begin, width = list_of_context(np.uint64(tokens[row]), list_of, list_start)
        if count > ZERO:
            c, g = code_at[0], gap_at[0]
            code, level = np.uint64(codes[c]), np.uint64(gaps[g])
            if code >= width + size or level >= levels:
                return False
            ids[e] = listed[begin + code] if code < width else order[code - width]
            logprobs[e] = grid_logprobs[level]
            if not lists.by_token:
                begin, width = list_of_context(np.uint64(ids[e]), list_of, list_start)
            mass = np.float32(0)
            mass += masses[level]
            here = (begin, width, width + size, levels)
            head = min(count, edges[1])
            level, code, mass = decode_singles(
                c, g, head, level, mass, here, listed, order, codes, gaps, grid_logprobs, masses, ids, logprobs, e
            )
            code_at[0], gap_at[0] = c + head, g + head
            for band in range(1, bands):
                if count <= edges[band] or level >= levels:
                    break
                first, last = edges[band], min(count, edges[band + 1])
                c, g = code_at[band], gap_at[band]
                level, code, mass = decode_pairs(
                    c, g, last - first, level, code, mass, here, listed, order, codes, gaps, pairs, grid_logprobs,
                    masses, ids, logprobs, e + first,
                )  # fmt: skip
                code_at[band], gap_at[band] = c + last - first, g + ((last - first + ONE) >> ONE)
            if level >= levels:
                return False
            shift = log_head[row] - np.log(mass)
            for j in range(e, e + count):
                logprobs[j] += shift
            e += count
        if draws > ZERO:
            here = (begin, width, width + size, levels)
            if not decode_sampled(s, draws, here, listed, order, streams.sampled, sampled_logprobs, ids, logprobs, e):
                return False
            e, s = e + draws, s + draws
    return True


@compiled
def list_of_context(context, list_of, list_start):
    """Start and length of the list of a context."""
    number = np.uint64(list_of[context])
    begin = np.uint64(list_start[number])
    return begin, np.uint64(list_start[number + ONE]) - begin


@compiled
def decode_singles(c, g, head, level, mass, here, listed, order, codes, gaps, grid_logprobs, masses, ids, logprobs, e):
    """Write entries 1..head - 1 of a row at e + 1. c, g: position of the row in the codes and the gaps.

    here: start and length of the row's list, and the limits of codes and levels. Returns level, code and the sum of the
    masses of entries 0..head - 1; a level out of range if anything is.
    """
    begin, width, reach, levels = here
    code = ZERO
    for j in range(ONE, head):
        gap = np.uint64(gaps[g + j])
        code = np.uint64(codes[c + j]) + (code + ONE if (gap == ZERO and j > ONE) else ZERO)
        level += gap
        if code >= reach or level >= levels:
            return levels, code, mass
        ids[e + j] = listed[begin + code] if code < width else order[code - width]
        logprobs[e + j] = grid_logprobs[level]
        mass += masses[level]
    return level, code, mass


@compiled
def decode_pairs(
    c, g, count, level, code, mass, here, listed, order, codes, gaps, pairs, grid_logprobs, masses, ids, logprobs, e
):
    """Write the `count` entries of a row in a band of pairs at e. Arguments and result as those of decode_singles."""
    begin, width, reach, levels = here
    other = np.float32(0)  # two sums, because each addition has to wait for the one before
    for j in range(ZERO, count, TWO):
        pair = np.uint64(gaps[g])
        g += ONE
        if pair < np.uint64(len(pairs)):
            both = np.uint64(pairs[pair])
            gap, following = both & LOW_BYTE, both >> EIGHT
        else:
            gap, following = split_pair(pair)
        code = np.uint64(codes[c + j]) + (code + ONE if gap == ZERO else ZERO)
        level += gap
        if code >= reach or level >= levels:
            return levels, code, mass
        ids[e + j] = listed[begin + code] if code < width else order[code - width]
        logprobs[e + j] = grid_logprobs[level]
        mass += masses[level]
        if j + ONE < count:
            code = np.uint64(codes[c + j + ONE]) + (code + ONE if following == ZERO else ZERO)
            level += following
            if code >= reach or level >= levels:
                return levels, code, mass
            ids[e + j + ONE] = listed[begin + code] if code < width else order[code - width]
            logprobs[e + j + ONE] = grid_logprobs[level]
            other += masses[level]
    return level, code, mass + other


@compiled
def split_pair(pair):
    """The two gaps of a pair of any size."""
    total = np.uint64((np.sqrt(8.0 * np.float64(pair) + 1.0) - 1.0) / 2.0)
    while total * (total + ONE) // TWO > pair:  # the root is rounded
        total -= ONE
    while (total + ONE) * (total + TWO) // TWO <= pair:
        total += ONE
    second = pair - total * (total + ONE) // TWO
    return total - second, second


@compiled
def decode_sampled(s, draws, here, listed, order, codes, sampled_logprobs, ids, logprobs, e):
    """Write the sampled entries of a row at e. s: their position in the stream of sampled entries.

    Returns False if a code is out of range.
    """
    begin, width, reach, _ = here
    following = ZERO
    for j in range(ZERO, draws):
        code = following + np.uint64(codes[s + j])
        following = code + ONE
        if code >= reach:
            return False
        ids[e + j] = listed[begin + code] if code < width else order[code - width]
        logprobs[e + j] = sampled_logprobs[s + j]
    return True
