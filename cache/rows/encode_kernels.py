"""Compiled loops that turn entries into codes and gaps. cache/rows/codec.py describes the encoding."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cache.rows.shared_kernels import FIRST, compiled


class CodeLists(NamedTuple):
    """A codebook for encoding: table [lists, width], rank_of_id [vocabulary], and whether codes are ids."""

    table: npt.NDArray[Any]
    rank_of_id: npt.NDArray[np.int32]
    is_plain: bool


class RowEntries(NamedTuple):
    """Rows to encode: offsets [n + 1], exact [n], code list of each row [n]; ids, levels and draws [entries].

    draws is empty if draws cannot repeat.
    """

    offsets: npt.NDArray[np.int64]
    exact: npt.NDArray[np.int64]
    lists: npt.NDArray[np.int64]
    ids: npt.NDArray[np.uint32]
    levels: npt.NDArray[np.uint16]
    draws: npt.NDArray[np.int64]


class StreamStarts(NamedTuple):
    """Where the elements of each row start in each stream, int64 [n] each."""

    first: npt.NDArray[np.int64]
    rest: npt.NDArray[np.int64]
    pair: npt.NDArray[np.int64]
    sampled: npt.NDArray[np.int64]


class OutputStreams(NamedTuple):
    """Arrays to write to. rest_gap must contain zeros."""

    first_code: npt.NDArray[np.uint32]
    first_gap: npt.NDArray[np.uint16]
    rest_code: npt.NDArray[np.uint32]
    rest_gap: npt.NDArray[Any]
    sampled_code: npt.NDArray[np.uint32]
    sampled_draws: npt.NDArray[np.uint32]


@compiled
def sort(values, begin, end):
    """Sort values[begin:end] in place. Runs of one level are short, and insertion is the fastest way to sort those."""
    if end - begin > 32:
        values[begin:end].sort()
        return
    for i in range(begin + 1, end):
        value = values[i]
        j = i
        while j > begin and values[j - 1] > value:
            values[j] = values[j - 1]
            j -= 1
        values[j] = value


@compiled
def encode_entries(order, rows, lists, starts, streams):
    """Write the codes and gaps of all rows.

    order: int64 [n], the order in which rows are encoded; rows with the same list should follow one another.
    rows: RowEntries. lists: CodeLists. starts: StreamStarts. streams: OutputStreams.
    """
    # Local names: numba counts references whenever an array is taken out of a tuple, which is slow within the loops.
    table, rank_of_id, is_plain = lists.table, lists.rank_of_id, lists.is_plain
    offsets, exact, list_of_row, ids = rows.offsets, rows.exact, rows.lists, rows.ids
    width = table.shape[1]
    position = np.full(len(rank_of_id) if width else 0, -1, np.int32)
    current = -1
    longest = 0
    for row in range(len(offsets) - 1):
        longest = max(longest, offsets[row + 1] - offsets[row])
    codes = np.empty(longest, np.int64)
    for row in order:
        start = offsets[row]
        count = offsets[row + 1] - start
        if count == 0:
            continue
        if width and list_of_row[row] != current:
            if current >= 0:
                for c in range(width):
                    position[table[current, c]] = -1
            current = list_of_row[row]
            for c in range(width):
                position[table[current, c]] = c
        for j in range(count):
            i = ids[start + j]
            in_list = width and position[i] >= 0
            codes[j] = i if is_plain else (position[i] if in_list else width + rank_of_id[i])
        if exact[row]:
            encode_exact(row, codes, rows, rank_of_id, starts, streams)
        if exact[row] < count:
            encode_sampled(row, codes, rows, starts, streams)


@compiled
def encode_exact(row, codes, rows, rank_of_id, starts, streams):
    """Write the exact entries of a row. codes: code of each entry; those of one level get sorted.

    The code of the first entry is its rank in the codebook's order. Of further entries with equal levels, each code is
    the distance from the one before.
    """
    levels, first_code, first_gap = rows.levels, streams.first_code, streams.first_gap
    rest_code, rest_gap = streams.rest_code, streams.rest_gap
    half_bits = rest_gap.itemsize * 4
    start, head = rows.offsets[row], rows.exact[row]
    f, r, p = starts.first[row], starts.rest[row], starts.pair[row]
    level = np.int64(levels[start])
    first_code[f] = rank_of_id[rows.ids[start]]
    first_gap[f] = level
    begin = 1
    while begin < head:
        end = begin + 1
        while end < head and levels[start + end] == levels[start + begin]:
            end += 1
        if end - begin > 1:
            sort(codes, begin, end)
        for j in range(begin, end):
            code = codes[j] if j == begin else codes[j] - codes[j - 1] - 1
            gap = np.int64(levels[start + j]) - level
            level = np.int64(levels[start + j])
            if j < FIRST:
                first_code[f + j] = code
                first_gap[f + j] = gap
            else:
                rest_code[r + j - FIRST] = code
                rest_gap[p + ((j - FIRST) >> 1)] += gap << half_bits if (j - FIRST) & 1 else gap
        begin = end


@compiled
def encode_sampled(row, codes, rows, starts, streams):
    """Write the sampled entries of a row in the order of their codes, each code as the distance from the one before."""
    start, head = rows.offsets[row], rows.exact[row]
    count = rows.offsets[row + 1] - start
    s = starts.sampled[row]
    sequence = np.argsort(codes[head:count])
    before = -1
    for j in range(count - head):
        code = codes[head + sequence[j]]
        streams.sampled_code[s + j] = code - before - 1
        before = code
        streams.sampled_draws[s + j] = rows.draws[start + head + sequence[j]] if len(rows.draws) else 1
