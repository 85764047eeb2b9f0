"""One pass over the logits of a row, compiled by numba: normaliser, head, draws, entropy. reduction.py calls it.

A row is read once from memory, in chunks that stay in the nearest cache: their maxima and sums are then enough to find
the head without sorting the row, and to place draws without a running sum over the vocabulary.
"""

import math
from functools import partial

import numpy as np

from cache.rows.kernels import compiled

CHUNK = 64
# Logits may be -inf or NaN, so of fast arithmetic only what keeps those; sums of a chunk may be taken in any order.
arithmetic = partial(compiled, fastmath={"reassoc", "contract", "arcp", "nsz"})
LOWEST = np.float32(-np.inf)
LOG2_E = np.float32(1.4426950408889634)
LEAST_EXPONENT = np.float32(-126.0)
# Adding it rounds to a whole number, which is then in the low bits.
TO_WHOLE = np.float32(1.5 * 2**23)
# Of 2^f on [-1/2, 1/2], highest power first, fitted for the least relative error: below 2^-23.
P6, P5, P4, P3, P2, P1 = (
    np.float32(value) for value in (1.5353362e-4, 1.3398874e-3, 9.6184370e-3, 5.5503324e-2, 2.4022648e-1, 6.9314718e-1)
)
ID_BITS = np.int64(0xFFFFFFFF)


# Without "reassoc", which would take the rounding back.
@partial(compiled, fastmath={"contract"})
def exp_of(x):
    """exp(x) for x <= 0 in float32 (relative error 1e-7 near 0, 4e-6 at -87), NaN for NaN.

    Plain arithmetic, so that the compiler makes vectors of it."""
    power = x * LOG2_E
    power = LEAST_EXPONENT if power < LEAST_EXPONENT else power
    shifted = power + TO_WHOLE
    f = power - (shifted - TO_WHOLE)
    series = ((((((P6 * f + P5) * f + P4) * f + P3) * f + P2) * f) + P1) * f + np.float32(1.0)
    # The exponent of a float starts at bit 23; adding to it multiplies by a power of two.
    return np.int32(np.float32(series).view(np.int32) + (np.float32(shifted).view(np.int32) << 23)).view(np.float32)


@compiled
def ordered(bits):
    """Integers of the same order as the floats that `bits` are. Its own inverse."""
    return bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF))


@compiled
def key_of(bits, i):
    """Larger for a larger logit, and of equal ones for the smaller id."""
    return (np.int64(ordered(bits[i])) << 32) | (ID_BITS - np.int64(i))


@arithmetic
def scan_chunks(row, bits, temperatures, has_entropy, maxima, sums, moments, powers):
    """Maximum m of each chunk, and sums of exp(x - m), of (x - m) exp(x - m) and of exp((x - m) / T)."""
    for c in range(len(row) // CHUNK):
        top = np.int32(-0x7FFFFFFF)
        for j in range(c * CHUNK, c * CHUNK + CHUNK):
            i = bits[j]
            top = max(top, np.int32(i ^ ((i >> np.int32(31)) & np.int32(0x7FFFFFFF))))
        peak = np.int32(ordered(top)).view(np.float32)
        maxima[c] = peak
        # A chunk of nothing but -inf: its differences would be NaN, and its weight is nothing.
        base = np.float32(0.0) if peak == LOWEST else peak
        total = np.float32(0.0)
        for j in range(c * CHUNK, c * CHUNK + CHUNK):
            total += exp_of(row[j] - base)
        sums[c] = np.float32(0.0) if peak == LOWEST and not np.isnan(total) else total
        if has_entropy:
            moment = np.float32(0.0)
            for j in range(c * CHUNK, c * CHUNK + CHUNK):
                # exp(-87) is the least that a float32 holds: what lies below it has no weight.
                x = row[j] - base
                x = np.float32(-87.0) if x < np.float32(-87.0) else x
                moment += x * exp_of(x)
            moments[c] = moment
        for t in range(len(temperatures)):
            inverse = np.float32(1.0 / temperatures[t])
            total = np.float32(0.0)
            for j in range(c * CHUNK, c * CHUNK + CHUNK):
                total += exp_of((row[j] - base) * inverse)
            powers[t, c] = total


@compiled
def scan(row, bits, last, temperatures, has_entropy, maxima, sums, moments, powers):
    """scan_chunks of the whole row. last: [CHUNK] room for the last chunk, filled up with -inf."""
    full = len(row) // CHUNK
    scan_chunks(row, bits, temperatures, has_entropy, maxima, sums, moments, powers)
    if full * CHUNK < len(row):
        last[:] = LOWEST
        last[: len(row) - full * CHUNK] = row[full * CHUNK :]
        rest = last.view(np.int32)
        scan_chunks(last, rest, temperatures, has_entropy, maxima[full:], sums[full:], moments[full:], powers[:, full:])


@arithmetic
def weigh(maxima, sums, scale, peak, weights):
    """Sum over chunks of exp((m - peak) * scale) times their own sum; each term is left in `weights`."""
    total = 0.0
    for c in range(len(maxima)):
        weights[c] = sums[c] * exp_of((maxima[c] - peak) * scale)
        total += np.float64(weights[c])
    return total


@compiled
def bound_of_largest(row, maxima, k, groups):
    """A value that at least k logits reach, and few more: the k-th largest of the maxima of small groups of them."""
    values = maxima if len(maxima) >= 2 * k else row
    size = max(1, len(values) // (4 * k))
    count = -(-len(values) // size)
    if count < k:
        return LOWEST
    for g in range(count):
        best = LOWEST
        for c in range(g * size, min((g + 1) * size, len(values))):
            best = values[c] if values[c] > best else best
        groups[g] = best
    return np.partition(groups[:count], count - k)[count - k]


@arithmetic
def collect(row, bits, maxima, bound, peak, keys, weights):
    """Keys of the logits that are at least `bound`, rising; returns how many. They are taken out of the weights."""
    count = 0
    for c in range(len(maxima)):
        if maxima[c] >= bound:
            start, stop = c * CHUNK, min((c + 1) * CHUNK, len(row))
            left = np.float32(0.0)
            found = np.int32(0)
            places = np.int32(0)
            for j in range(start, stop):
                above = row[j] >= bound
                left += np.float32(0.0) if above else exp_of(row[j] - peak)
                found += np.int32(1) if above else np.int32(0)
                places += np.int32(j - start) if above else np.int32(0)
            weights[c] = left
            if found == 1:  # its place is the sum of the places, and no look at each is needed
                keys[count] = key_of(bits, start + places)
                count += 1
                continue
            for j in range(start, stop):
                if row[j] >= bound:
                    keys[count] = key_of(bits, j)
                    count += 1
    keys[:count].sort()
    return count


@arithmetic
def sum_of(weights):
    """Sum in float64."""
    total = 0.0
    for c in range(len(weights)):
        total += np.float64(weights[c])
    return total


@compiled
def draw(row, least, peak, weights, points, ids, counts):
    """Ids at rising `points` of the running sum, over the ids, of exp(x - peak) of the logits x below `least`.

    An id that several points meet is written once, with their number in `counts`. Returns how many ids.
    """
    n = 0
    passed = 0.0
    p = 0
    # Sums in another order differ in the last digits: a point beyond all of them is met in the last chunk of weight.
    final = 0
    for c in range(len(weights)):
        final = c if weights[c] > 1e-30 else final
    for c in range(len(weights)):
        end = np.inf if c == final else passed + np.float64(weights[c])
        if p < len(points) and points[p] < end:
            within = passed
            latest = np.int64(-1)
            for j in range(c * CHUNK, min((c + 1) * CHUNK, len(row))):
                if row[j] >= least:
                    continue
                share = np.float64(exp_of(row[j] - peak))
                if share <= 1e-37:
                    continue
                within += share
                met = 0
                while p < len(points) and points[p] < min(within, end):
                    p += 1
                    met += 1
                if met > 0:
                    ids[n] = j
                    counts[n] = met
                    n += 1
                latest = j
            # Sums of single terms and of chunks differ in the last digits: what lies between goes to the last id.
            while p < len(points) and points[p] < end:
                p += 1
                if latest >= 0:
                    if n == 0 or ids[n - 1] != latest:
                        ids[n] = latest
                        counts[n] = 0
                        n += 1
                    counts[n - 1] += 1
        passed = end
    return n


@compiled
def entropy_of(maxima, sums, moments, weights, peak, total):
    """Entropy in nats, from the sums of each chunk."""
    mean = 0.0
    for c in range(len(maxima)):
        if sums[c] > 0:
            share = np.float64(weights[c]) / np.float64(sums[c])
            mean += share * (np.float64(moments[c]) + np.float64(sums[c]) * np.float64(maxima[c] - peak))
    return max(0.0, math.log(total) - mean / total)


@compiled
def head_of(row, bits, maxima, weights, peak, total, most, mass, threshold, groups, keys, ids, logprobs):
    """Write the exact entries: the largest logits, at most `most`, and only until they hold `mass`.

    Logits that no float32 probability tells from nothing are left out. Returns how many entries, the mass that is left
    times `total`, and what all of them reach; the weights lose at least the entries.
    """
    log_z = np.float64(peak) + math.log(total)
    bound = bound_of_largest(row, maxima, most, groups)
    if threshold > 0:
        bound = np.float32(log_z + math.log(threshold))
    count = collect(row, bits, maxima, bound, peak, keys, weights)
    held = 0.0
    n = 0
    while n < min(count, most) and held < mass:
        i = ID_BITS - (keys[count - 1 - n] & ID_BITS)
        logprob = np.float64(row[i]) - log_z
        if logprob < -700.0:
            break
        ids[n] = i
        # Rounding may leave the largest a hair above 0.
        logprobs[n] = min(logprob, 0.0)
        held += math.exp(logprob)
        n += 1
    if n == 0:
        return n, total, bound
    rest = sum_of(weights)
    for other in range(count - n):
        rest += math.exp(np.float64(row[ID_BITS - (keys[other] & ID_BITS)]) - peak)
    return n, rest, bound


@compiled
def draws_of(row, weights, peak, total, rest, least, uniforms, room, threshold, draws, points, times, ids, logprobs):
    """Write the sampled entries; returns how many. uniforms: float64 [1] for a threshold, else [draws]."""
    count = 0
    if draws > 0:
        count = draws
        points[:draws] = uniforms[:draws] * total
        points[:draws].sort()
    else:
        step = threshold * total
        point = uniforms[0] * step
        while point < rest and count < room:
            points[count] = point
            count += 1
            point += step
    met = draw(row, least, peak, weights, points[:count], ids, times)
    for i in range(met):
        logprobs[i] = math.log(times[i] / draws) if draws > 0 else math.log(threshold)
    return met


@compiled
def reduce_rows(
    logits,
    following,
    uniforms,
    most,
    mass,
    threshold,
    draws,
    has_entropy,
    temperatures,
    ids,
    logprobs,
    exact,
    counts,
    log_tail,
    token_logprobs,
    entropy,
    log_normalizers,
):
    """Fill ids and logprobs [n, most] and what belongs to each row; see reduction.Reducer for the meaning.

    logits: float32 [n, vocabulary], contiguous. A row with a NaN, +inf or nothing but -inf gets counts of -1.
    """
    vocabulary = logits.shape[1]
    chunks = -(-vocabulary // CHUNK)
    sums = np.empty((4, chunks), np.float32)
    maxima, weights = sums[2], sums[3]
    powers = np.empty((len(temperatures), chunks), np.float32)
    groups = np.empty(vocabulary, np.float32)
    last = np.empty(CHUNK, np.float32)
    keys = np.empty(vocabulary, np.int64)
    times = np.empty(max(most, draws), np.int64)
    points = np.empty(max(most, draws), np.float64)
    for r in range(len(logits)):
        row = logits[r]
        bits = row.view(np.int32)
        scan(row, bits, last, temperatures, has_entropy, maxima, sums[0], sums[1], powers)
        peak = maxima.max()
        total = weigh(maxima, sums[0], np.float32(1.0), peak, weights)
        if not (total > 0.0 and total < np.inf and np.abs(peak) < np.inf):
            counts[r] = -1
            continue
        if following[r] >= 0:
            token_logprobs[r] = min(np.float64(row[following[r]]) - np.float64(peak) - math.log(total), 0.0)
        if has_entropy:
            entropy[r] = entropy_of(maxima, sums[0], sums[1], weights, peak, total)
        for t in range(len(temperatures)):
            power = weigh(maxima, powers[t], np.float32(1.0 / temperatures[t]), peak, groups[:chunks])
            log_normalizers[r, t] = math.log(power) - math.log(total) / temperatures[t]
        n = 0
        rest = total
        least = np.float32(np.inf)
        if draws == 0:
            n, rest, least = head_of(
                row, bits, maxima, weights, peak, total, most, mass, threshold, groups, keys, ids[r], logprobs[r]
            )
        exact[r] = n
        # Less than one float32 probability is nothing.
        log_tail[r] = min(math.log(rest / total), 0.0) if rest > 1e-37 * total and n < vocabulary else LOWEST
        if draws > 0 or threshold > 0:
            n += draws_of(
                row,
                weights,
                peak,
                total,
                rest,
                least,
                uniforms[r],
                most - n,
                threshold,
                draws,
                points,
                times,
                ids[r, n:],
                logprobs[r, n:],
            )
        counts[r] = n
