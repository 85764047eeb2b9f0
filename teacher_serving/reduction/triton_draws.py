"""Triton kernels for draws from rows of logits on a GPU, after those in triton_kernels.py.

sum_prefixes      one row: cumulative sum of the chunks
locate_draws      reads the chunks in which the draws lie
write_draws       one row: sorts the drawn ids and counts how often each was drawn
"""

# Compile-time constants have names in capitals.
# ruff: noqa: N803
# mypy: disable-error-code="untyped-decorator, no-untyped-call, attr-defined"
from __future__ import annotations

from teacher_serving.reduction.triton_kernels import fast_exp, jit, sortable, tl


@jit
def sum_prefixes(
    chunks, sums, row_counts, prefixes,
    CHUNKS: tl.constexpr,
):  # fmt: skip
    """Write the cumulative sums of `sums`, float64 [n, chunks]. Grid: (n,).

    row_counts[3] becomes the last chunk with weight: points beyond the sum of a row belong to it.
    """
    row = tl.program_id(0).to(tl.int64)
    chunk = tl.arange(0, CHUNKS)
    is_chunk = chunk < chunks
    weights = tl.load(sums + row * chunks + chunk, mask=is_chunk, other=0.0)
    tl.store(prefixes + row * chunks + chunk, tl.cumsum(weights.to(tl.float64), 0), mask=is_chunk)
    tl.store(row_counts + row * 4 + 3, tl.max(tl.where(weights > 1e-30, chunk, 0), 0))


@jit
def locate_draws(
    logits, row_stride, vocabulary, chunks, uniforms,
    row_sums, row_counts, prefixes, out, out_width, drawn, draws,
    ENTRIES: tl.constexpr, CHUNK: tl.constexpr, CHUNKS_LOG2: tl.constexpr, SHIFT: tl.constexpr, BLOCK: tl.constexpr,
    HAS_HEAD: tl.constexpr, THRESHOLD: tl.constexpr,
):  # fmt: skip
    """Write the id at which the cumulative sum of exp(logit) passes each point, int32 [n, draws]. Grid: (n, blocks).

    0x7FFFFFFF stands where a row has fewer points. With a head, points lie THRESHOLD of the total apart in the tail,
    and logits of the head have no weight. Otherwise each uniform number is a point.
    """
    row = tl.program_id(0).to(tl.int64)
    position = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    is_valid = tl.load(row_counts + row * 4) >= 0
    least = tl.load(row_counts + row * 4 + 1)
    final = tl.load(row_counts + row * 4 + 3)
    base = tl.load(row_sums + row * 3).to(tl.float32)
    total = tl.load(row_sums + row * 3 + 1)
    is_draw = is_valid & (position < draws)
    if HAS_HEAD:
        exact = tl.load(out + row * out_width + 2 * ENTRIES + 1)
        points = (tl.load(uniforms + row) + position.to(tl.float64)) * (total * THRESHOLD)
        is_draw = is_draw & (points < tl.load(row_sums + row * 3 + 2)) & (exact + position < ENTRIES)
    else:
        points = tl.load(uniforms + row * draws + position, mask=position < draws, other=0.0) * total
    # The first chunk up to `final` whose cumulative sum is above the point.
    low = tl.zeros((BLOCK,), tl.int32)
    high = tl.zeros((BLOCK,), tl.int32) + final
    for _ in range(CHUNKS_LOG2 + 1):
        middle = (low + high) >> 1
        is_open = low < high
        before = tl.load(prefixes + row * chunks + middle, mask=is_open, other=0.0) <= points
        high = tl.where(is_open & (before == 0), middle, high)
        low = tl.where(is_open & before, middle + 1, low)
    target = points - tl.load(prefixes + row * chunks + low - 1, mask=low > 0, other=0.0)
    offset = tl.arange(0, CHUNK)
    place = low[:, None] * CHUNK + offset[None, :]
    is_logit = (place < vocabulary) & is_draw[:, None]
    x = tl.load(logits + row * row_stride + place, mask=is_logit, other=float("-inf")).to(tl.float32)
    weights = fast_exp(x - base)
    if HAS_HEAD:
        weights = tl.where((sortable(x.to(tl.int32, bitcast=True)) >> SHIFT) >= least, 0.0, weights)
    weights = tl.where(weights > 1e-37, weights, 0.0)
    passed = tl.sum((tl.cumsum(weights.to(tl.float64), 1) <= target[:, None]).to(tl.int32), 1)
    # The sum of single terms can be smaller than the sum of the chunk. Points in between select the last id.
    latest = tl.max(tl.where(weights > 0.0, offset[None, :], -1), 1)
    ids = low * CHUNK + tl.minimum(passed, latest)
    tl.store(drawn + row * draws + position, tl.where(is_draw & (latest >= 0), ids, 0x7FFFFFFF), mask=position < draws)


@jit
def larger(a, b):
    return tl.maximum(a, b)


@jit
def write_draws(
    row_counts, drawn, out, values, out_width, draws,
    ENTRIES: tl.constexpr, DRAWS: tl.constexpr, HAS_HEAD: tl.constexpr, LOG_THRESHOLD: tl.constexpr,
):  # fmt: skip
    """Append the distinct drawn ids of a row in ascending order to its entries. Grid: (n,)."""
    row = tl.program_id(0).to(tl.int64)
    position = tl.arange(0, DRAWS)
    is_valid = tl.load(row_counts + row * 4) >= 0
    out += row * out_width
    values += row * out_width
    exact = 0
    if HAS_HEAD:
        exact = tl.load(out + 2 * ENTRIES + 1)
    ids = tl.load(drawn + row * draws + position, mask=position < draws, other=0x7FFFFFFF)
    ids = tl.sort(ids)
    is_draw = (ids < 0x7FFFFFFF) & is_valid
    is_first = (position == 0) | (ids != tl.gather(ids, tl.maximum(position - 1, 0), 0))
    is_last = (position == DRAWS - 1) | (ids != tl.gather(ids, tl.minimum(position + 1, DRAWS - 1), 0))
    slot = exact + tl.cumsum((is_first & is_draw).to(tl.int32), 0) - 1
    first = tl.associative_scan(tl.where(is_first, position, 0), 0, larger)
    is_written = is_last & is_draw
    tl.store(out + slot, ids, mask=is_written)
    if HAS_HEAD:
        tl.store(values + ENTRIES + slot, tl.zeros((DRAWS,), tl.float32) + LOG_THRESHOLD, mask=is_written)
    else:
        repeats = (position - first + 1).to(tl.float32)
        tl.store(values + ENTRIES + slot, tl.log(repeats / draws), mask=is_written)
        tl.store(out + 2 * ENTRIES + 1, 0)
        tl.store(values + 2 * ENTRIES + 2, 0.0)
    count = exact + tl.sum(is_written.to(tl.int32), 0)
    tl.store(out + 2 * ENTRIES, tl.where(is_valid, count, -1))
