"""The loops over entries, compiled by numba. Plain arrays in, plain arrays out; codec.py says what they mean.

Each takes a few nanoseconds an entry; numpy would need a pass over memory for every step of them.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

# Entries of a row whose codes and gaps are in streams of their own.
FIRST = 8


def compiled(function: Callable[..., Any], **options: Any) -> Any:
    """Compile on first use, and keep the result on disk where a place for it can be written."""
    try:
        return numba.njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:  # numba found no folder for its cache
        return numba.njit(nogil=True, **options)(function)


@compiled
def first_bad_row(offsets, ids, logprobs, exact, vocab_size, seen):
    """(row, reason) of the first impossible row, or (-1, 0). seen: int64 [vocab_size], all -1.

    Reasons: 1 id outside the vocabulary, 2 log-probability not finite or above 0, 3 not falling, 4 an id twice.
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
def quantise(offsets, exact, logprobs, middles, hints, scale, levels):
    """Write the nearest level of each exact entry. middles: where one level ends and the next begins, falling.

    hints[i]: a level not below that of a value of -i / scale, from which the search starts.
    """
    for row in range(len(offsets) - 1):
        for e in range(offsets[row], offsets[row] + exact[row]):
            value = logprobs[e]
            level = hints[min(np.int64(-value * scale), len(hints) - 1)] if value < 0 else 0
            while level < len(middles) and value < middles[level]:
                level += 1
            levels[e] = level


@compiled
def sort(values, begin, end):
    """Sort values[begin:end] in place. Runs of one level are short, and then insertion is the fastest way."""
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
def fill_lists(starts, ids, scores, order, general, table, listed):
    """Write each list but the first: ids by falling score, its own or, for those it never saw, the general one.

    ids, scores: the seen ids of list l at starts[l]:starts[l + 1], best first. general: score of each place of `order`.
    listed: int64 [vocabulary], all -1.
    """
    width = table.shape[1]
    for number in range(1, len(table)):
        seen, stop = starts[number], starts[number + 1]
        for i in range(seen, stop):
            listed[ids[i]] = number
        place = 0
        for length in range(width):
            while place < len(order) and listed[order[place]] == number:
                place += 1
            if place == len(order) or (seen < stop and scores[seen] >= general[place]):
                table[number, length] = ids[seen]
                seen += 1
            else:
                table[number, length] = order[place]
                place += 1


@compiled
def pack(
    rows, lists, offsets, exact, ids, levels, draws, table, order_of, plain,
    first_at, rest_at, pair_at, sampled_at, first_code, first_gap, rest_code, rest_gap, sampled_code, sampled_draws,
):  # fmt: skip
    """Write the codes and gaps of each row; rest_gap holds zeros before.

    rows: in which order, equal lists together. lists: the list of each row. order_of: place of each id in the
    codebook's order. The first exact entry is coded by that alone. Others go in the order of their codes where their
    levels are equal, each as the distance from the one before.
    """
    width = table.shape[1]
    half = rest_gap.itemsize * 4
    place = np.full(len(order_of) if width else 0, -1, np.int32)
    current = -1
    longest = 0
    for row in range(len(offsets) - 1):
        longest = max(longest, offsets[row + 1] - offsets[row])
    codes = np.empty(longest, np.int64)
    for row in rows:
        start = offsets[row]
        count = offsets[row + 1] - start
        head = exact[row]
        if count == 0:
            continue
        if width and lists[row] != current:
            if current >= 0:
                for c in range(width):
                    place[table[current, c]] = -1
            current = lists[row]
            for c in range(width):
                place[table[current, c]] = c
        for j in range(count):
            i = ids[start + j]
            codes[j] = i if plain else (place[i] if width and place[i] >= 0 else width + order_of[i])
        f, r, p, s = first_at[row], rest_at[row], pair_at[row], sampled_at[row]
        begin = 1
        level = 0
        if head:
            level = np.int64(levels[start])
            first_code[f] = order_of[ids[start]]
            first_gap[f] = level
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
                    rest_gap[p + ((j - FIRST) >> 1)] += gap << half if (j - FIRST) & 1 else gap
            begin = end
        if head < count:
            sequence = np.argsort(codes[head:count])
            before = -1
            for j in range(count - head):
                code = codes[head + sequence[j]]
                sampled_code[s + j] = code - before - 1
                before = code
                sampled_draws[s + j] = draws[start + head + sequence[j]] if len(draws) else 1


@compiled
def unpack(  # noqa: PLR0915
    exact, sampled, tokens, table, order, list_of, by_token, plain,
    first_code, first_gap, rest_code, rest_gap, sampled_code, grid, masses, log_head, sampled_logprobs, ids, logprobs,
):  # fmt: skip
    """Write ids and log-probabilities of all rows, exact entries first, shifted so that those hold exp(log_head).

    Returns False where a code or level is out of range: a part is checked before it is read, but an index out of bounds
    must never be followed. Unsigned numbers throughout, because numba bends negative indices around.
    """
    width = np.uint64(table.shape[1])
    size = np.uint64(len(order))
    reach = width + size
    levels = np.uint64(len(grid))
    one, none = np.uint64(1), np.uint64(0)
    half = np.uint64(rest_gap.itemsize * 4)
    low = (one << half) - one
    e, f, r, p, s = none, none, none, none, none
    for row in range(len(exact)):
        count = np.uint64(exact[row])
        draws = np.uint64(sampled[row])
        if count + draws == none:
            continue
        chosen = none
        if by_token:
            if tokens[row] >= size:
                return False
            chosen = np.uint64(list_of[np.uint64(tokens[row])])
        level, mass = none, np.float32(0)
        if count > none:
            code = np.uint64(first_code[f])
            level = np.uint64(first_gap[f])
            if code >= size or level >= levels:
                return False
            ids[e] = order[code]
            logprobs[e] = grid[level]
            mass += masses[level]
            if not by_token:
                chosen = np.uint64(list_of[np.uint64(order[code])])
        choices = table[chosen]
        code = none
        head = min(count, np.uint64(FIRST))
        for j in range(one, head):
            gap = np.uint64(first_gap[f + j])
            code = np.uint64(first_code[f + j]) + (code + one if (gap == none and j > one) else none)
            level += gap
            if code >= reach or level >= levels:
                return False
            ids[e + j] = code if plain else (choices[code] if code < width else order[code - width])
            logprobs[e + j] = grid[level]
            mass += masses[level]
        f += head
        e += head
        rest = count - head
        other = np.float32(0)  # two sums, because each addition waits for the one before
        for j in range(none, rest, np.uint64(2)):
            both = np.uint64(rest_gap[p])
            p += one
            gap = both & low
            code = np.uint64(rest_code[r + j]) + (code + one if gap == none else none)
            level += gap
            if code >= reach or level >= levels:
                return False
            ids[e + j] = code if plain else (choices[code] if code < width else order[code - width])
            logprobs[e + j] = grid[level]
            mass += masses[level]
            if j + one < rest:
                gap = both >> half
                code = np.uint64(rest_code[r + j + one]) + (code + one if gap == none else none)
                level += gap
                if code >= reach or level >= levels:
                    return False
                ids[e + j + one] = code if plain else (choices[code] if code < width else order[code - width])
                logprobs[e + j + one] = grid[level]
                other += masses[level]
        mass += other
        r += rest
        e += rest
        if count > none:
            shift = log_head[row] - np.log(mass)
            for j in range(e - count, e):
                logprobs[j] += shift
        place = none
        for _ in range(draws):
            code = place + np.uint64(sampled_code[s])
            place = code + one
            if code >= reach:
                return False
            ids[e] = choices[code] if code < width else order[code - width]
            logprobs[e] = sampled_logprobs[s]
            e += one
            s += one
    return True


@compiled
def compare(offsets, exact, ids, logprobs, masses, log_tail, other_ids, other_logprobs, other_log_tail, entry, owner):
    """(rows that differ in ids, greatest error of an exact entry, sum of the rows' divergences), in nats.

    masses: exp(logprobs). entry: int64 [vocabulary] and owner: int32 [vocabulary], all -1, are scratch space.
    """
    wrong, greatest, total = 0, np.float32(0), 0.0
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
                greatest = max(greatest, abs(error))
                divergence += masses[entry[i]] * error
        if not same:
            wrong += 1
        elif exact[row] > 0:
            if np.isfinite(log_tail[row]):
                divergence += np.exp(log_tail[row]) * (log_tail[row] - other_log_tail[row])
            total += divergence
    return wrong, greatest, total
