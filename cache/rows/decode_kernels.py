"""Compiled loops that turn codes and gaps into entries. cache/rows/codec.py describes the encoding.

Numbers are unsigned throughout, because numba wraps negative indices around. A code or level that is out of range is
reported, never followed: parts are verified before they are read, but an index must not leave its array in any case.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cache.rows.shared_kernels import FIRST, compiled

ZERO, ONE, TWO = np.uint64(0), np.uint64(1), np.uint64(2)


class IdLists(NamedTuple):
    """A codebook for decoding: table [lists, width], order and list_of [vocabulary], context and kind of the codes."""

    table: npt.NDArray[Any]
    order: npt.NDArray[Any]
    list_of: npt.NDArray[np.uint32]
    by_token: bool
    is_plain: bool


class InputStreams(NamedTuple):
    """The streams to decode, see EncodedRows."""

    first_code: npt.NDArray[Any]
    first_gap: npt.NDArray[Any]
    rest_code: npt.NDArray[Any]
    rest_gap: npt.NDArray[Any]
    sampled_code: npt.NDArray[Any]


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
    size = np.uint64(len(lists.order))
    levels = np.uint64(len(grid.logprobs))
    e, f, r, p, s = ZERO, ZERO, ZERO, ZERO, ZERO
    for row in range(len(exact)):
        count, draws = np.uint64(exact[row]), np.uint64(sampled[row])
        if count + draws == ZERO:
            continue
        context = ZERO
        if lists.by_token:
            if tokens[row] >= size:
                return False
            context = np.uint64(lists.list_of[np.uint64(tokens[row])])
        if count > ZERO:
            code, level = np.uint64(streams.first_code[f]), np.uint64(streams.first_gap[f])
            if code >= size or level >= levels:
                return False
            out.ids[e] = lists.order[code]
            out.logprobs[e] = grid.logprobs[level]
            if not lists.by_token:
                context = np.uint64(lists.list_of[np.uint64(lists.order[code])])
            head = min(count, np.uint64(FIRST))
            rest = count - head
            level, code, mass = decode_first(f, head, level, lists, lists.table[context], streams, grid, e, out)
            if level < levels:
                level, mass = decode_rest(
                    r, p, rest, level, code, mass, lists, lists.table[context], streams, grid, e + head, out
                )
            if level >= levels:
                return False
            f, r, p = f + head, r + rest, p + ((rest + ONE) >> ONE)
            shift = log_head[row] - np.log(mass)
            for j in range(e, e + count):
                out.logprobs[j] += shift
            e += count
        if draws > ZERO:
            if not decode_sampled(s, draws, lists, lists.table[context], streams, sampled_logprobs, e, out):
                return False
            e, s = e + draws, s + draws
    return True


@compiled
def id_of_code(code, lists, choices):
    """The id of a code in range. choices: the list of the row."""
    width = np.uint64(len(choices))
    return code if lists.is_plain else (choices[code] if code < width else lists.order[code - width])


@compiled
def decode_first(f, head, level, lists, choices, streams, grid, e, out):
    """Write entries 1..head - 1 of a row at out[e + 1:]. f: position of the row in the first streams.

    Returns level, code and the sum of the masses of entries 0..head - 1; a level out of range if anything is.
    """
    reach, levels = np.uint64(len(choices)) + np.uint64(len(lists.order)), np.uint64(len(grid.logprobs))
    mass = np.float32(0)
    mass += grid.masses[level]
    code = ZERO
    for j in range(ONE, head):
        gap = np.uint64(streams.first_gap[f + j])
        code = np.uint64(streams.first_code[f + j]) + (code + ONE if (gap == ZERO and j > ONE) else ZERO)
        level += gap
        if code >= reach or level >= levels:
            return levels, code, mass
        out.ids[e + j] = id_of_code(code, lists, choices)
        out.logprobs[e + j] = grid.logprobs[level]
        mass += grid.masses[level]
    return level, code, mass


@compiled
def decode_rest(r, p, rest, level, code, mass, lists, choices, streams, grid, e, out):
    """Write the `rest` exact entries after the first ones at out[e:], two for each number of the gap stream.

    r, p: position of the row in the streams of codes and of gaps. Returns level and the sum of all masses of the row;
    a level out of range if anything is.
    """
    reach, levels = np.uint64(len(choices)) + np.uint64(len(lists.order)), np.uint64(len(grid.logprobs))
    half_bits = np.uint64(streams.rest_gap.itemsize * 4)
    low_half = (ONE << half_bits) - ONE
    other = np.float32(0)  # two sums, because each addition has to wait for the one before
    for j in range(ZERO, rest, TWO):
        both = np.uint64(streams.rest_gap[p])
        p += ONE
        gap = both & low_half
        code = np.uint64(streams.rest_code[r + j]) + (code + ONE if gap == ZERO else ZERO)
        level += gap
        if code >= reach or level >= levels:
            return levels, mass
        out.ids[e + j] = id_of_code(code, lists, choices)
        out.logprobs[e + j] = grid.logprobs[level]
        mass += grid.masses[level]
        if j + ONE < rest:
            gap = both >> half_bits
            code = np.uint64(streams.rest_code[r + j + ONE]) + (code + ONE if gap == ZERO else ZERO)
            level += gap
            if code >= reach or level >= levels:
                return levels, mass
            out.ids[e + j + ONE] = id_of_code(code, lists, choices)
            out.logprobs[e + j + ONE] = grid.logprobs[level]
            other += grid.masses[level]
    return level, mass + other


@compiled
def decode_sampled(s, draws, lists, choices, streams, sampled_logprobs, e, out):
    """Write the sampled entries of a row at out[e:]. s: their position in the sampled stream.

    Returns False if a code is out of range.
    """
    width = np.uint64(len(choices))
    reach = width + np.uint64(len(lists.order))
    following = ZERO
    for j in range(ZERO, draws):
        code = following + np.uint64(streams.sampled_code[s + j])
        following = code + ONE
        if code >= reach:
            return False
        out.ids[e + j] = choices[code] if code < width else lists.order[code - width]
        out.logprobs[e + j] = sampled_logprobs[s + j]
    return True
