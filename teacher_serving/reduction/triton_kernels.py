"""Triton kernels that reduce rows of logits on a GPU. triton_backend.py launches them in this order.

    sum_chunks        reads all logits once: maximum and sum of each chunk; moment and tempered sums of each tile
    choose_chunks     one row: normaliser, entropy, log-normalisers, and the few chunks that can have exact entries
    collect_keys      reads those chunks again: sort keys of the largest logits, and what they leave
    narrow_keys       one row, if too many keys were collected: finds the smallest that is needed
    write_head        one row: sorts the keys; exact entries and tail

triton_draws.py has the kernels for modes with draws.

Every sum has a fixed order that depends on the vocabulary and on the targets alone. A rerun therefore gives the same
bits, whatever the batch. No kernel needs anything from the host while it runs.

A chunk can have one of the k largest logits only if it is among the first k chunks, sorted by falling maximum and then
by number: otherwise k logits of other chunks come before it.
"""

# Compile-time constants have names in capitals.
# ruff: noqa: N803, PLR0915
# mypy: disable-error-code="untyped-decorator, no-untyped-call, attr-defined"
from __future__ import annotations

from typing import Any

try:
    import triton
    import triton.language as tl

    jit = triton.jit
    # The interpreter runs kernels on a CPU, for tests.
    IS_INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
except ImportError:  # torch for CPUs comes without Triton; triton_backend.py then reports that it is missing
    tl: Any = None  # type: ignore[no-redef]

    def jit(function):
        return function


@jit
def sortable(bits):
    """Map the bits of a float32 to an int32 of the same order. The function is its own inverse."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@jit
def finite_or_zero(x):
    """x, or 0 where x is -inf or NaN: a base whose difference to -inf is no NaN."""
    return tl.where(x > float("-inf"), x, 0.0)


@jit
def exp2(power):
    """2^power for power <= 0 in float32. It is 0 below 2^-126: without such numbers it takes one instruction."""
    if IS_INTERPRETED:
        return tl.exp2(power)
    else:
        return tl.inline_asm_elementwise(
            "ex2.approx.ftz.f32 $0, $1;", "=f,f", [power], dtype=tl.float32, is_pure=True, pack=1
        )


@jit
def fast_exp(x):
    """exp(x) for x <= 0 in float32; see exp2."""
    return exp2(x * 1.4426950408889634)


@jit
def sum_chunks(
    logits, row_stride, vocabulary, chunks, tiles, inverse_temperatures,
    maxima, sums, partials,
    CHUNK: tl.constexpr, TILE_CHUNKS: tl.constexpr, TILES: tl.constexpr,
    HAS_ENTROPY: tl.constexpr, TEMPERATURES: tl.constexpr,
):  # fmt: skip
    """Fill maxima and sums [n, chunks], and partials [n, tiles, 3 + TEMPERATURES] if something needs them.

    A sum is that of exp(x - maximum of the chunk). Partials are relative to the maximum of a tile: the maximum, the sum
    of exp(x), that of x exp(x), and that of exp(x / T) for each T. Grid: (n, tiles / TILES).
    """
    row = tl.program_id(0).to(tl.int64)
    for t in range(TILES):
        tile = tl.program_id(1) * TILES + t
        chunk = tile * TILE_CHUNKS + tl.arange(0, TILE_CHUNKS)
        place = chunk[:, None] * CHUNK + tl.arange(0, CHUNK)[None, :]
        x = tl.load(logits + row * row_stride + place, mask=place < vocabulary, other=float("-inf")).to(tl.float32)
        top = tl.max(x, 1)
        power = (x - finite_or_zero(top)[:, None]) * 1.4426950408889634
        weights = exp2(power)
        total = tl.sum(weights, 1)
        is_chunk = chunk < chunks
        tl.store(maxima + row * chunks + chunk, top.to(maxima.dtype.element_ty), mask=is_chunk)
        tl.store(sums + row * chunks + chunk, total, mask=is_chunk)
        if HAS_ENTROPY or TEMPERATURES > 0:
            peak = tl.max(top, 0)
            lower = tl.where(top > float("-inf"), (top - finite_or_zero(peak)) * 1.4426950408889634, -126.0)
            scale = exp2(lower)
            power += lower[:, None]
            out = partials + (row * tiles + tile) * (3 + TEMPERATURES)
            is_tile = tile < tiles
            tl.store(out, peak, mask=is_tile)
            tl.store(out + 1, tl.sum(total * scale), mask=is_tile)
            if HAS_ENTROPY:
                # Terms of -inf have no weight, but the product would be NaN.
                moment = tl.sum(tl.maximum(power, -126.0) * (weights * scale[:, None]))
                tl.store(out + 2, moment * 0.6931471805599453, mask=is_tile)
            for i in tl.static_range(TEMPERATURES):
                inverse = tl.load(inverse_temperatures + i)
                tl.store(out + 3 + i, tl.sum(exp2(power * inverse)), mask=is_tile)


@jit
def choose_chunks(
    logits, row_stride, chunks, tiles, next_tokens, inverse_temperatures,
    maxima, sums, partials, row_sums, row_counts, chosen, prefixes, values, out_width, wanted,
    ENTRIES: tl.constexpr, CHUNKS: tl.constexpr, TILES: tl.constexpr, SHIFT: tl.constexpr,
    HAS_HEAD: tl.constexpr, HAS_DRAWS: tl.constexpr, HAS_ENTROPY: tl.constexpr, TEMPERATURES: tl.constexpr,
    LOG_THRESHOLD: tl.constexpr,
):  # fmt: skip
    """Write what a row needs but its entries, and choose at most `wanted` chunks. Grid: (n,).

    row_sums: float64 [n, 3], maximum of the row, sum relative to it, and the sum of the chunks that are not chosen.
    row_counts: int32 [n, 4], chosen chunks, or -1 for a row without a distribution; the smallest key of an entry; 0.
    Keys have their lowest SHIFT bits removed, which are the same for all logits of their dtype.
    """
    row = tl.program_id(0).to(tl.int64)
    chunk = tl.arange(0, CHUNKS)
    is_chunk = chunk < chunks
    top = tl.load(maxima + row * chunks + chunk, mask=is_chunk, other=float("-inf")).to(tl.float32)
    chunk_sums = tl.load(sums + row * chunks + chunk, mask=is_chunk, other=0.0)
    peak = tl.max(top, 0)
    base = finite_or_zero(peak)
    weights = chunk_sums * fast_exp(top - base)
    total = tl.sum(weights.to(tl.float64), 0)
    is_finite = (total > 0.0) & (total < float("inf")) & (tl.abs(peak) < float("inf"))
    # The interpreter cannot broadcast a boolean that comes from floating point numbers.
    is_valid = tl.where(is_finite, 1, 0) > 0
    safe_total = tl.where(is_valid, total, 1.0)
    log_total = tl.log(safe_total)
    values += row * out_width + 2 * ENTRIES
    next_token = tl.load(next_tokens + row)
    next_logit = tl.load(logits + row * row_stride + next_token, mask=next_token >= 0, other=0.0).to(tl.float32)
    logprob = tl.minimum((next_logit.to(tl.float64) - base) - log_total, 0.0)
    tl.store(values + 3, tl.where(is_valid & (next_token >= 0), logprob, float("nan")).to(tl.float32))
    if HAS_ENTROPY or TEMPERATURES > 0:
        tile = tl.arange(0, TILES)
        is_tile = tile < tiles
        parts = partials + (row * tiles + tile) * (3 + TEMPERATURES)
        lower = tl.load(parts, mask=is_tile, other=float("-inf")) - base
        scale = fast_exp(lower).to(tl.float64)
        if HAS_ENTROPY:
            tile_sums = tl.load(parts + 1, mask=is_tile, other=0.0).to(tl.float64)
            moments = tl.load(parts + 2, mask=is_tile, other=0.0).to(tl.float64)
            mean = tl.sum(scale * (moments + finite_or_zero(lower).to(tl.float64) * tile_sums), 0) / safe_total
            tl.store(values + 4, tl.maximum(log_total - mean, 0.0).to(tl.float32))
        for i in tl.static_range(TEMPERATURES):
            inverse = tl.load(inverse_temperatures + i)
            powers = tl.load(parts + 3 + i, mask=is_tile, other=0.0).to(tl.float64)
            power = tl.sum(powers * fast_exp(lower * inverse).to(tl.float64), 0)
            normalizer = tl.log(tl.where(power > 0.0, power, 1.0)) - log_total * inverse.to(tl.float64)
            tl.store(values + 5 + i, normalizer.to(tl.float32))
    count = 0
    rest = total
    least = tl.full((), -0x80000000, tl.int64)
    if HAS_HEAD:
        keys = sortable(top.to(tl.int32, bitcast=True)) >> SHIFT
        if HAS_DRAWS:
            # The mode threshold: exact entries are those from the threshold on.
            bound = (base.to(tl.float64) + log_total + LOG_THRESHOLD).to(tl.float32)
            # The removed bits are 0 in keys of positive logits, and 1 in those of negative ones.
            whole = sortable(bound.to(tl.int32, bitcast=True)).to(tl.int64)
            least = tl.where(whole < 0, whole, whole + ((1 << SHIFT) - 1)) >> SHIFT
        can_hold = (top > float("-inf")) & (keys >= least.to(tl.int32)) & is_valid
        if tl.sum(can_hold.to(tl.int32), 0) > wanted:
            # The wanted-th largest key lies in [low, high).
            low = tl.min(tl.where(can_hold, keys, 0x7FFFFFFF), 0).to(tl.int64)
            high = tl.max(tl.where(can_hold, keys, -0x80000000), 0).to(tl.int64) + 1
            while high - low > 1:
                middle = (low + high) >> 1
                reached = tl.sum((can_hold & (keys >= middle.to(tl.int32))).to(tl.int32), 0)
                if reached >= wanted:
                    low = middle
                    high = tl.where(reached == wanted, middle + 1, high)
                else:
                    high = middle
            least = low
        above = can_hold & (keys > least.to(tl.int32))
        level = can_hold & (keys == least.to(tl.int32))
        # Two cumulative numbers in one scan; neither is above 2^16.
        ranks = tl.cumsum(above.to(tl.int32) + (level.to(tl.int32) << 16), 0)
        room = wanted - tl.sum(above.to(tl.int32), 0)
        taken = above | (level & ((ranks >> 16) <= room))
        slot = (ranks & 0xFFFF) + tl.minimum(ranks >> 16, room) - 1
        tl.store(chosen + row * wanted + slot, chunk, mask=taken)
        count = tl.sum(taken.to(tl.int32), 0)
        rest = tl.sum(tl.where(taken, 0.0, weights).to(tl.float64), 0)
    if HAS_DRAWS:
        tl.store(sums + row * chunks + chunk, weights, mask=is_chunk)
    if HAS_DRAWS and not HAS_HEAD:
        tl.store(prefixes + row * chunks + chunk, tl.cumsum(weights.to(tl.float64), 0), mask=is_chunk)
        tl.store(row_counts + row * 4 + 3, tl.max(tl.where(weights > 1e-30, chunk, 0), 0))
    tl.store(row_sums + row * 3, base.to(tl.float64))
    tl.store(row_sums + row * 3 + 1, total)
    tl.store(row_sums + row * 3 + 2, rest)
    tl.store(row_counts + row * 4, tl.where(is_valid, count, -1))
    tl.store(row_counts + row * 4 + 1, least.to(tl.int32))
    tl.store(row_counts + row * 4 + 2, 0)


@jit
def load_chosen(
    logits, chosen, vocabulary, start, count, SHIFT: tl.constexpr, CHUNK: tl.constexpr, GROUP: tl.constexpr
):
    """Chunks start, start + 1, ... of the chosen ones: their numbers, ids, logits and keys; -inf beyond the end."""
    position = start + tl.arange(0, GROUP)
    chunk = tl.load(chosen + position, mask=position < count, other=-1)
    place = chunk[:, None] * CHUNK + tl.arange(0, CHUNK)[None, :]
    is_logit = (chunk[:, None] >= 0) & (place < vocabulary)
    x = tl.load(logits + place, mask=is_logit, other=float("-inf")).to(tl.float32)
    keys = sortable(x.to(tl.int32, bitcast=True)) >> SHIFT
    return chunk, place, x, keys, is_logit & (x > float("-inf"))


@jit
def count_from(logits, chosen, vocabulary, count, least, SHIFT: tl.constexpr, CHUNK: tl.constexpr, GROUP: tl.constexpr):
    """Number of logits in the chosen chunks whose key is at least `least`."""
    hits = 0
    for start in range(0, count, GROUP):
        _, _, _, keys, is_logit = load_chosen(logits, chosen, vocabulary, start, count, SHIFT, CHUNK, GROUP)
        hits += tl.sum(tl.sum((is_logit & (keys >= least.to(tl.int32))).to(tl.int32), 1), 0)
    return hits


@jit
def key_of(x, place):
    """An int64 that grows with the logit. Of equal logits, the smaller id has the larger key."""
    return (sortable(x.to(tl.int32, bitcast=True)).to(tl.int64) << 32) | (0xFFFFFFFF - place.to(tl.int64))


@jit
def ranks_of(flags):
    """For each flag of [chunks, places], the number of flags up to it, row by row."""
    in_chunk = tl.sum(flags, 1)
    return (tl.cumsum(in_chunk, 0) - in_chunk)[:, None] + tl.cumsum(flags, 1)


@jit
def collect_keys(
    logits, row_stride, vocabulary, chunks, chosen, sums, row_sums, row_counts, rests, groups, collected, wanted,
    SHIFT: tl.constexpr, CHUNK: tl.constexpr, GROUP: tl.constexpr, CAPACITY: tl.constexpr, HAS_DRAWS: tl.constexpr,
):  # fmt: skip
    """Write sort keys, int64 [n, CAPACITY], of the logits from the smallest key on, in any order. Grid: (n, groups).

    row_counts[2] becomes their number, which may be above CAPACITY. rests: float64 [n, groups], what they leave of the
    chosen chunks, relative to the maximum of the row; it also replaces the sums of the chunks if draws follow.
    """
    row = tl.program_id(0).to(tl.int64)
    group = tl.program_id(1)
    count = tl.load(row_counts + row * 4)
    rest = tl.full((), 0.0, tl.float64)
    if group * GROUP < count:
        least = tl.load(row_counts + row * 4 + 1)
        base = tl.load(row_sums + row * 3).to(tl.float32)
        chunk, place, x, keys, is_logit = load_chosen(
            logits + row * row_stride, chosen + row * wanted, vocabulary, group * GROUP, count, SHIFT, CHUNK, GROUP
        )
        taken = is_logit & (keys >= least)
        flags = taken.to(tl.int32)
        # Any order will do: the keys are sorted later, and no two are equal.
        first = tl.atomic_add(row_counts + row * 4 + 2, tl.sum(flags), sem="relaxed")
        slot = first + ranks_of(flags) - 1
        tl.store(collected + row * CAPACITY + slot, key_of(x, place), mask=taken & (slot < CAPACITY))
        left = tl.sum(tl.where(taken, 0.0, fast_exp(x - base)), 1)
        if HAS_DRAWS:
            tl.store(sums + row * chunks + chunk, left, mask=chunk >= 0)
        rest = tl.sum(left.to(tl.float64), 0)
    tl.store(rests + row * groups + group, rest)


@jit
def narrow_keys(
    logits, row_stride, vocabulary, chosen, row_sums, row_counts, rests, groups, collected, wanted,
    SHIFT: tl.constexpr, CHUNK: tl.constexpr, GROUP: tl.constexpr, CAPACITY: tl.constexpr, GROUPS: tl.constexpr,
):  # fmt: skip
    """Collect again, but the `wanted` largest logits alone, for rows with more than CAPACITY. Grid: (n,).

    Such rows are rare: many of their logits lie in few chunks, or are equal.
    """
    row = tl.program_id(0).to(tl.int64)
    if tl.load(row_counts + row * 4 + 2) > CAPACITY:
        logits += row * row_stride
        chosen += row * wanted
        count = tl.load(row_counts + row * 4)
        base = tl.load(row_sums + row * 3).to(tl.float32)
        # The wanted-th largest key lies in [low, high).
        low = tl.load(row_counts + row * 4 + 1).to(tl.int64)
        high = (sortable(base.to(tl.int32, bitcast=True)) >> SHIFT).to(tl.int64) + 1
        while high - low > 1:
            middle = (low + high) >> 1
            hits = count_from(logits, chosen, vocabulary, count, middle, SHIFT, CHUNK, GROUP)
            low = tl.where(hits >= wanted, middle, low)
            high = tl.where(hits >= wanted, high, middle)
        least = low.to(tl.int32)
        room = wanted - count_from(logits, chosen, vocabulary, count, low + 1, SHIFT, CHUNK, GROUP)
        n = 0
        seen = 0
        rest = tl.full((), 0.0, tl.float64)
        for start in range(0, count, GROUP):
            _, place, x, keys, is_logit = load_chosen(logits, chosen, vocabulary, start, count, SHIFT, CHUNK, GROUP)
            level = (is_logit & (keys == least)).to(tl.int32)
            taken = is_logit & ((keys > least) | ((level > 0) & (seen + ranks_of(level) <= room)))
            seen += tl.sum(level)
            flags = taken.to(tl.int32)
            tl.store(collected + row * CAPACITY + n + ranks_of(flags) - 1, key_of(x, place), mask=taken)
            n += tl.sum(flags)
            rest += tl.sum(tl.where(taken, 0.0, fast_exp(x - base)).to(tl.float64))
        tl.store(row_counts + row * 4 + 2, n)
        group = tl.arange(0, GROUPS)
        tl.store(rests + row * groups + group, tl.where(group == 0, rest, 0.0), mask=group < groups)


@jit
def write_head(
    row_sums, row_counts, rests, groups, collected, out, values, out_width, vocabulary, wanted,
    GROUPS: tl.constexpr, ENTRIES: tl.constexpr, CAPACITY: tl.constexpr, LOWEST: tl.constexpr, MASS: tl.constexpr,
):  # fmt: skip
    """Write the exact entries of a row in falling order, their number, and the tail. Grid: (n,).

    row_sums[2] becomes the mass of the tail, relative to the maximum of the row.
    """
    row = tl.program_id(0).to(tl.int64)
    is_valid = tl.load(row_counts + row * 4) >= 0
    n = tl.load(row_counts + row * 4 + 2)
    base = tl.load(row_sums + row * 3)
    total = tl.load(row_sums + row * 3 + 1)
    log_total = tl.log(tl.where(is_valid, total, 1.0))
    position = tl.arange(0, CAPACITY)
    is_key = (position < n) & is_valid
    key = tl.load(collected + row * CAPACITY + position, mask=is_key, other=-0x8000000000000000)
    key = tl.sort(key, descending=True)
    logit = sortable((key >> 32).to(tl.int32)).to(tl.float32, bitcast=True)
    logit = tl.where(is_key, logit, float("-inf"))
    lower = logit.to(tl.float64) - base
    logprob = lower - log_total
    is_entry = is_key & (position < wanted) & (logprob >= LOWEST)
    weights = fast_exp(lower.to(tl.float32)).to(tl.float64)
    if MASS > 0:
        p = tl.where(is_entry, weights / tl.where(is_valid, total, 1.0), 0.0)
        is_entry = is_entry & (tl.cumsum(p, 0) - p < MASS)
    entries = tl.sum(is_entry.to(tl.int32), 0)
    out += row * out_width
    values += row * out_width
    tl.store(out + position, (0xFFFFFFFF - (key & 0xFFFFFFFF)).to(tl.int32), mask=is_entry)
    tl.store(values + ENTRIES + position, tl.minimum(logprob, 0.0).to(tl.float32), mask=is_entry)
    group = tl.arange(0, GROUPS)
    rest = tl.sum(tl.load(rests + row * groups + group, mask=group < groups, other=0.0), 0)
    rest += tl.sum(tl.where(is_key & (is_entry == 0), weights, 0.0), 0)
    tail = tl.load(row_sums + row * 3 + 2) + rest
    # Without exact entries the tail is exactly the total.
    tail = tl.where(entries > 0, tail, total)
    has_tail = is_valid & (tail > total * 1e-37) & (entries < vocabulary)
    log_tail = tl.minimum(tl.log(tl.where(has_tail, tail, 1.0)) - log_total, 0.0)
    tl.store(out + 2 * ENTRIES, tl.where(is_valid, entries, -1))
    tl.store(out + 2 * ENTRIES + 1, entries)
    tl.store(values + 2 * ENTRIES + 2, tl.where(has_tail, log_tail, float("-inf")).to(tl.float32))
    tl.store(row_sums + row * 3 + 2, tail)
