"""Compiled loops that turn entries into codes and gaps. cache/rows/codec.py describes the encoding."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cache.rows.shared_kernels import compiled


class CodeLists(NamedTuple):
    """A codebook for encoding: see Codebook. rank_of_id: int32 [vocabulary]."""

    listed: npt.NDArray[Any]
    list_start: npt.NDArray[np.int64]
    rank_of_id: npt.NDArray[np.int32]
    by_token: bool


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
    """Where the elements of each row start: codes and gaps int64 [bands, n], sampled int64 [n].

    edges: int64 [bands + 1], first rank of each band, and a number above all ranks.
    """

    codes: npt.NDArray[np.int64]
    gaps: npt.NDArray[np.int64]
    sampled: npt.NDArray[np.int64]
    edges: npt.NDArray[np.int64]


class OutputStreams(NamedTuple):
    """Arrays to write to, see EncodedRows."""

    codes: npt.NDArray[np.uint32]
    gaps: npt.NDArray[Any]
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
def encode_entries(sequence, rows, lists, starts, streams):
    """Write the codes and gaps of all rows.

    sequence: int64 [n], the order in which rows are encoded; rows with the same list should follow one another.
    rows: RowEntries. lists: CodeLists. starts: StreamStarts. streams: OutputStreams.
    """
    # Local names: numba counts references whenever an array is taken out of a tuple, which is slow within the loops.
    listed, list_start, rank_of_id = lists.listed, lists.list_start, lists.rank_of_id
    offsets, exact, list_of_row, ids, levels = rows.offsets, rows.exact, rows.lists, rows.ids, rows.levels
    position = np.full(len(rank_of_id), -1, np.int32)
    begin, width = 0, 0
    current = -1
    longest = 0
    for row in range(len(offsets) - 1):
        longest = max(longest, offsets[row + 1] - offsets[row])
    codes, gaps = np.empty(longest, np.int64), np.empty(longest, np.int64)
    for row in sequence:
        start = offsets[row]
        count = offsets[row + 1] - start
        if count == 0:
            continue
        if list_of_row[row] != current:
            for c in range(width):
                position[listed[begin + c]] = -1
            current = list_of_row[row]
            begin = list_start[current]
            width = list_start[current + 1] - begin
            for c in range(width):
                position[listed[begin + c]] = c
        for j in range(count):
            i = ids[start + j]
            codes[j] = position[i] if position[i] >= 0 else width + rank_of_id[i]
        head = exact[row]
        if head > 0:
            if not lists.by_token:
                codes[0] = rank_of_id[ids[start]]
            gaps_of_row(levels[start : start + head], codes, gaps)
            write_bands(row, head, codes, gaps, starts, streams)
        if head < count:
            write_sampled(row, codes[head:count], rows, starts, streams)


@compiled
def gaps_of_row(levels, codes, gaps):
    """Write the gaps of a row's levels, and turn the codes of each run of one level into sorted distances.

    The first entry does not take part in a run.
    """
    head = len(levels)
    gaps[0] = levels[0]
    begin = 1
    while begin < head:
        end = begin + 1
        while end < head and levels[end] == levels[begin]:
            end += 1
        gaps[begin] = np.int64(levels[begin]) - np.int64(levels[begin - 1])
        if end - begin > 1:
            sort(codes, begin, end)
            for j in range(end - 1, begin, -1):
                codes[j] -= codes[j - 1] + 1
                gaps[j] = 0
        begin = end


@compiled
def write_bands(row, head, codes, gaps, starts, streams):
    """Write the codes and gaps of the `head` exact entries of a row to the streams of their bands."""
    edges, out_codes, out_gaps = starts.edges, streams.codes, streams.gaps
    for band in range(len(edges) - 1):
        first, last = edges[band], min(head, edges[band + 1])
        if first >= last:
            break
        c, g = starts.codes[band, row], starts.gaps[band, row]
        for j in range(first, last):
            out_codes[c + j - first] = codes[j]
        if band == 0:
            for j in range(last):
                out_gaps[g + j] = gaps[j]
            continue
        for j in range(first, last, 2):
            second = gaps[j + 1] if j + 1 < last else 0
            total = gaps[j] + second
            out_gaps[g + ((j - first) >> 1)] = total * (total + 1) // 2 + second


@compiled
def write_sampled(row, codes, rows, starts, streams):
    """Write the sampled entries of a row in the order of their codes, each code as the distance from the one before."""
    start = rows.offsets[row] + rows.exact[row]
    s = starts.sampled[row]
    sequence = np.argsort(codes)
    before = -1
    for j in range(len(codes)):
        code = codes[sequence[j]]
        streams.sampled_code[s + j] = code - before - 1
        before = code
        streams.sampled_draws[s + j] = rows.draws[start + sequence[j]] if len(rows.draws) else 1
