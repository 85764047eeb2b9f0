"""Numba kernels that reduce one row of logits: normaliser, exact entries, sampled entries, entropy.

A row is read from memory once, in chunks that fit in the L1 cache. The maximum and the sum of each chunk are enough to
find the largest logits without sorting the row, and to locate draws without a cumulative sum over the vocabulary.

All kernels are in one file because numba's cache on disk is invalidated per file: a kernel that is inlined from another
file would stay in the cache after an edit.

With the fast-math flags the order of sums is the compiler's choice. Entropies and log-normalisers can therefore differ
in the last digit of a float32 between two compilations.
"""

import math
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cache.rows.shared_kernels import compiled

CHUNK = 64
# Logits may be -inf or NaN, so only the fast-math flags that preserve both are set. They let the compiler reorder sums.
compiled_fast = partial(compiled, fastmath={"reassoc", "contract", "arcp", "nsz"})
MINUS_INF = np.float32(-np.inf)
LOG2_E = np.float32(1.4426950408889634)
MIN_EXPONENT = np.float32(-126.0)
# exp(-87) is the smallest normal float32. Smaller terms have no weight.
MIN_LOG_WEIGHT = np.float32(-87.0)
# Entries below this log-probability are left out: no float32 probability differs from 0 there.
MIN_LOGPROB = -700.0
# A mass below this share of the total counts as 0.
MIN_MASS = 1e-37
# Adding it to a float32 rounds that number to an integer, which is then in the low bits.
ROUNDING_SHIFT = np.float32(1.5 * 2**23)
# Coefficients of 2^f on [-1/2, 1/2], fitted for the smallest relative error, which is below 2^-23.
P6, P5, P4, P3, P2, P1 = (
    np.float32(value) for value in (1.5353362e-4, 1.3398874e-3, 9.6184370e-3, 5.5503324e-2, 2.4022648e-1, 6.9314718e-1)
)
ID_BITS = np.int64(0xFFFFFFFF)


class ReductionRule(NamedTuple):
    """What to keep of a row.

    max_entries: width of the output arrays. mass: probability after which exact entries stop; above 1 for no limit.
    threshold: probability from which an entry is exact; 0 where the mode has none. draws: 0 where the mode has none.
    temperatures: float64 [temperatures].
    """

    max_entries: int
    mass: float
    threshold: float
    draws: int
    has_entropy: bool
    temperatures: npt.NDArray[np.float64]


class ReducedArrays(NamedTuple):
    """Output arrays of n rows; the first counts[i] entries of row i are used. counts is -1 for an invalid row.

    ids: int64 [n, max_entries]; logprobs: float32 [n, max_entries]; exact, counts: int64 [n]; log_tail, token_logprobs,
    entropy: float32 [n]; log_normalizers: float32 [n, temperatures].
    """

    ids: npt.NDArray[np.int64]
    logprobs: npt.NDArray[np.float32]
    exact: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    log_tail: npt.NDArray[np.float32]
    token_logprobs: npt.NDArray[np.float32]
    entropy: npt.NDArray[np.float32]
    log_normalizers: npt.NDArray[np.float32]


class ChunkSums(NamedTuple):
    """Maximum m of each chunk, and its sums of exp(x - m), of (x - m) exp(x - m) and of exp((x - m) / T).

    float32 [chunks]; powers: float32 [temperatures, chunks].
    """

    maxima: npt.NDArray[np.float32]
    sums: npt.NDArray[np.float32]
    moments: npt.NDArray[np.float32]
    powers: npt.NDArray[np.float32]


class Scratch(NamedTuple):
    """Memory that all rows of a call share.

    weights: float32 [chunks], sums relative to the maximum of the row. padded: float32 [CHUNK], the last chunk.
    groups: float32 [vocabulary]; keys: int64 [vocabulary]; points: float64 and repeats: int64 [entries].
    """

    weights: npt.NDArray[np.float32]
    padded: npt.NDArray[np.float32]
    groups: npt.NDArray[np.float32]
    keys: npt.NDArray[np.int64]
    points: npt.NDArray[np.float64]
    repeats: npt.NDArray[np.int64]


class Draws(NamedTuple):
    """Ascending points in the cumulative sum of a row, and the ids that they select with the number of points of each.

    points: float64; ids, repeats: int64.
    """

    points: npt.NDArray[np.float64]
    ids: npt.NDArray[np.int64]
    repeats: npt.NDArray[np.int64]


class Row(NamedTuple):
    """Logits of one row, the same memory as int32, their maximum, and the sum of exp(logit - maximum)."""

    logits: npt.NDArray[np.float32]
    bits: npt.NDArray[np.int32]
    peak: np.float32
    total: float


# The flag "reassoc" would cancel the rounding.
@partial(compiled, fastmath={"contract"})
def fast_exp(x):
    """exp(x) for x <= 0 in float32 (relative error 1e-7 near 0, 4e-6 at -87); NaN for NaN.

    It consists of plain arithmetic, so that the compiler can vectorise loops over it."""
    power = x * LOG2_E
    power = MIN_EXPONENT if power < MIN_EXPONENT else power
    shifted = power + ROUNDING_SHIFT
    f = power - (shifted - ROUNDING_SHIFT)
    series = ((((((P6 * f + P5) * f + P4) * f + P3) * f + P2) * f) + P1) * f + np.float32(1.0)
    # The exponent of a float32 starts at bit 23. Adding n to it multiplies by 2^n.
    return np.int32(np.float32(series).view(np.int32) + (np.float32(shifted).view(np.int32) << 23)).view(np.float32)


@compiled
def sortable(bits):
    """Map the bits of a float32 to an int32 of the same order. The function is its own inverse."""
    return bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF))


@compiled
def sort_key(bits, i):
    """An int64 that grows with the logit of id i. Of equal logits, the smaller id has the larger key."""
    return (np.int64(sortable(bits[i])) << 32) | (ID_BITS - np.int64(i))


@compiled
def key_id(key):
    """The id in a sort key."""
    return ID_BITS - (key & ID_BITS)


@compiled_fast
def sum_chunks(logits, bits, rule, chunks):
    """Fill `chunks` (ChunkSums) for the complete chunks of `logits`."""
    for c in range(len(logits) // CHUNK):
        start, stop = c * CHUNK, c * CHUNK + CHUNK
        top = np.int32(-0x7FFFFFFF)
        for j in range(start, stop):
            i = bits[j]
            top = max(top, np.int32(i ^ ((i >> np.int32(31)) & np.int32(0x7FFFFFFF))))
        peak = np.int32(sortable(top)).view(np.float32)
        chunks.maxima[c] = peak
        # In a chunk of -inf only, differences to the maximum would be NaN. Its weight is 0.
        base = np.float32(0.0) if peak == MINUS_INF else peak
        total = np.float32(0.0)
        for j in range(start, stop):
            total += fast_exp(logits[j] - base)
        chunks.sums[c] = np.float32(0.0) if peak == MINUS_INF and not np.isnan(total) else total
        if rule.has_entropy:
            moment = np.float32(0.0)
            for j in range(start, stop):
                x = logits[j] - base
                x = MIN_LOG_WEIGHT if x < MIN_LOG_WEIGHT else x
                moment += x * fast_exp(x)
            chunks.moments[c] = moment
        for t in range(len(rule.temperatures)):
            inverse = np.float32(1.0 / rule.temperatures[t])
            total = np.float32(0.0)
            for j in range(start, stop):
                total += fast_exp((logits[j] - base) * inverse)
            chunks.powers[t, c] = total


@compiled
def sum_row(logits, bits, rule, chunks, padded):
    """Fill `chunks` for the whole row. An incomplete last chunk is padded with -inf in `padded`."""
    full = len(logits) // CHUNK
    sum_chunks(logits, bits, rule, chunks)
    if full * CHUNK < len(logits):
        padded[:] = MINUS_INF
        padded[: len(logits) - full * CHUNK] = logits[full * CHUNK :]
        last = ChunkSums(chunks.maxima[full:], chunks.sums[full:], chunks.moments[full:], chunks.powers[:, full:])
        sum_chunks(padded, padded.view(np.int32), rule, last)


@compiled_fast
def weigh_chunks(maxima, sums, scale, peak, weights):
    """Write sums * exp((maxima - peak) * scale) to `weights`; return their sum in float64."""
    total = 0.0
    for c in range(len(maxima)):
        weights[c] = sums[c] * fast_exp((maxima[c] - peak) * scale)
        total += np.float64(weights[c])
    return total


@compiled
def bound_top_k(logits, maxima, k, groups):
    """Return a value that at least k logits reach, and few more: the k-th largest of the maxima of small groups."""
    values = maxima if len(maxima) >= 2 * k else logits
    size = max(1, len(values) // (4 * k))
    count = -(-len(values) // size)
    if count < k:
        return MINUS_INF
    for g in range(count):
        best = MINUS_INF
        for c in range(g * size, min((g + 1) * size, len(values))):
            best = values[c] if values[c] > best else best
        groups[g] = best
    return np.partition(groups[:count], count - k)[count - k]


@compiled_fast
def collect_keys(row, maxima, bound, keys, weights):
    """Write the sort keys of the logits >= `bound` in ascending order; return their number.

    Their mass is removed from `weights`.
    """
    count = 0
    for c in range(len(maxima)):
        if maxima[c] >= bound:
            start, stop = c * CHUNK, min((c + 1) * CHUNK, len(row.logits))
            weight = np.float32(0.0)
            hits = np.int32(0)
            offsets = np.int32(0)
            for j in range(start, stop):
                above = row.logits[j] >= bound
                weight += np.float32(0.0) if above else fast_exp(row.logits[j] - row.peak)
                hits += np.int32(1) if above else np.int32(0)
                offsets += np.int32(j - start) if above else np.int32(0)
            weights[c] = weight
            if hits == 1:  # the sum of the offsets is the offset of the one hit
                keys[count] = sort_key(row.bits, start + offsets)
                count += 1
                continue
            for j in range(start, stop):
                if row.logits[j] >= bound:
                    keys[count] = sort_key(row.bits, j)
                    count += 1
    keys[:count].sort()
    return count


@compiled_fast
def sum_weights(weights):
    """Sum in float64."""
    total = 0.0
    for c in range(len(weights)):
        total += np.float64(weights[c])
    return total


@compiled
def write_head(row, rule, maxima, scratch, ids, logprobs):
    """Write the exact entries: the largest logits, at most max_entries, until their probability reaches rule.mass.

    Returns the number of entries, the remaining mass times row.total, and a bound that all entries reach. The mass of
    at least all entries is removed from the weights.
    """
    log_z = np.float64(row.peak) + math.log(row.total)
    bound = bound_top_k(row.logits, maxima, rule.max_entries, scratch.groups)
    if rule.threshold > 0:
        bound = np.float32(log_z + math.log(rule.threshold))
    keys = scratch.keys
    count = collect_keys(row, maxima, bound, keys, scratch.weights)
    mass = 0.0
    n = 0
    while n < min(count, rule.max_entries) and mass < rule.mass:
        i = key_id(keys[count - 1 - n])
        logprob = np.float64(row.logits[i]) - log_z
        if logprob < MIN_LOGPROB:
            break
        ids[n] = i
        # Rounding can move the largest log-probability above 0.
        logprobs[n] = min(logprob, 0.0)
        mass += math.exp(logprob)
        n += 1
    if n == 0:
        return n, row.total, bound
    tail = sum_weights(scratch.weights)
    for other in range(count - n):
        tail += math.exp(np.float64(row.logits[key_id(keys[other])]) - row.peak)
    return n, tail, bound


@compiled
def locate_points(row, head_bound, weights, draws):
    """Find the ids at which the cumulative sum of exp(logit - peak) passes each point of `draws` (Draws).

    Only logits below `head_bound` count. An id that several points select is written once, with their number in
    `repeats`. Returns the number of ids.
    """
    n = 0
    p = 0
    total = 0.0
    # Sums in different orders differ in the last digits. Points beyond the total belong to the last chunk with weight.
    final = 0
    for c in range(len(weights)):
        final = c if weights[c] > 1e-30 else final
    for c in range(len(weights)):
        end = np.inf if c == final else total + np.float64(weights[c])
        if p < len(draws.points) and draws.points[p] < end:
            n, p = locate_in_chunk(row, head_bound, c, total, end, draws, n, p)
        total = end
    return n


@compiled
def locate_in_chunk(row, head_bound, c, total, end, draws, n, p):
    """Continue locate_points in chunk c, whose cumulative sum goes from `total` to `end`.

    n ids are written and p points are used before and, as returned, after it.
    """
    points, ids, repeats = draws.points, draws.ids, draws.repeats
    latest = np.int64(-1)
    for j in range(c * CHUNK, min((c + 1) * CHUNK, len(row.logits))):
        if row.logits[j] >= head_bound:
            continue
        weight = np.float64(fast_exp(row.logits[j] - row.peak))
        if weight <= MIN_MASS:
            continue
        total += weight
        hits = 0
        while p < len(points) and points[p] < min(total, end):
            p += 1
            hits += 1
        if hits > 0:
            ids[n] = j
            repeats[n] = hits
            n += 1
        latest = j
    # The sum of single terms can be smaller than the sum of the chunk. Points in between select the last id.
    while p < len(points) and points[p] < end:
        p += 1
        if latest >= 0:
            if n == 0 or ids[n - 1] != latest:
                ids[n] = latest
                repeats[n] = 0
                n += 1
            repeats[n - 1] += 1
    return n, p


@compiled
def row_entropy(row, chunks, weights):
    """Entropy of the row in nats, from the sums of its chunks."""
    mean = 0.0
    for c in range(len(weights)):
        if chunks.sums[c] > 0:
            scale = np.float64(weights[c]) / np.float64(chunks.sums[c])
            distance = np.float64(chunks.maxima[c] - row.peak)
            mean += scale * (np.float64(chunks.moments[c]) + np.float64(chunks.sums[c]) * distance)
    return max(0.0, math.log(row.total) - mean / row.total)


@compiled
def write_draws(row, rule, tail, head_bound, uniforms, scratch, ids, logprobs):
    """Write the sampled entries to ids and logprobs; return their number.

    uniforms: float64 [draws], or [1] for a threshold, whose points are `threshold` apart within the mass `tail`.
    """
    points = scratch.points
    if rule.draws > 0:
        count = rule.draws
        points[:count] = uniforms[:count] * row.total
        points[:count].sort()
    else:
        count = 0
        step = rule.threshold * row.total
        point = uniforms[0] * step
        while point < tail and count < len(ids):
            points[count] = point
            count += 1
            point += step
    n = locate_points(row, head_bound, scratch.weights, Draws(points[:count], ids, scratch.repeats))
    for i in range(n):
        logprobs[i] = math.log(scratch.repeats[i] / rule.draws) if rule.draws > 0 else math.log(rule.threshold)
    return n


@compiled
def write_row_values(r, row, next_token, rule, chunks, scratch, out):
    """Write what does not depend on the mode: log-probability of the next token, entropy, log-normalisers."""
    if next_token >= 0:
        logprob = np.float64(row.logits[next_token]) - np.float64(row.peak) - math.log(row.total)
        out.token_logprobs[r] = min(logprob, 0.0)
    if rule.has_entropy:
        out.entropy[r] = row_entropy(row, chunks, scratch.weights)
    for t in range(len(rule.temperatures)):
        scale = np.float32(1.0 / rule.temperatures[t])
        powers = scratch.groups[: len(chunks.maxima)]
        power = weigh_chunks(chunks.maxima, chunks.powers[t], scale, row.peak, powers)
        out.log_normalizers[r, t] = math.log(power) - math.log(row.total) / rule.temperatures[t]


@compiled
def write_entries(r, row, uniforms, rule, chunks, scratch, out):
    """Write the exact and the sampled entries of row r, and its tail."""
    n = 0
    tail = row.total
    head_bound = np.float32(np.inf)
    if rule.draws == 0:
        n, tail, head_bound = write_head(row, rule, chunks.maxima, scratch, out.ids[r], out.logprobs[r])
    out.exact[r] = n
    has_tail = tail > MIN_MASS * row.total and n < len(row.logits)
    out.log_tail[r] = min(math.log(tail / row.total), 0.0) if has_tail else MINUS_INF
    if rule.draws > 0 or rule.threshold > 0:
        n += write_draws(row, rule, tail, head_bound, uniforms, scratch, out.ids[r, n:], out.logprobs[r, n:])
    out.counts[r] = n


@compiled
def reduce_rows(logits, next_tokens, uniforms, rule, out):
    """Reduce each row of logits to `out` (ReducedArrays) by `rule` (ReductionRule).

    logits: float32 [n, vocabulary], contiguous. next_tokens: int64 [n], -1 for none. uniforms: float64 [n, numbers].
    A row with a NaN, with +inf, or with -inf only is invalid.
    """
    vocabulary = logits.shape[1]
    count = -(-vocabulary // CHUNK)
    room = max(rule.max_entries, rule.draws)
    sums = np.empty((4, count), np.float32)
    chunks = ChunkSums(sums[0], sums[1], sums[2], np.empty((len(rule.temperatures), count), np.float32))
    scratch = Scratch(
        sums[3],
        np.empty(CHUNK, np.float32),
        np.empty(vocabulary, np.float32),
        np.empty(vocabulary, np.int64),
        np.empty(room, np.float64),
        np.empty(room, np.int64),
    )
    for r in range(len(logits)):
        bits = logits[r].view(np.int32)
        sum_row(logits[r], bits, rule, chunks, scratch.padded)
        peak = chunks.maxima.max()
        total = weigh_chunks(chunks.maxima, chunks.sums, np.float32(1.0), peak, scratch.weights)
        if not (total > 0.0 and total < np.inf and np.abs(peak) < np.inf):
            out.counts[r] = -1
            continue
        row = Row(logits[r], bits, peak, total)
        write_row_values(r, row, next_tokens[r], rule, chunks, scratch, out)
        write_entries(r, row, uniforms[r], rule, chunks, scratch, out)
