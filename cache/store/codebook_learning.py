"""Codebooks learned from rows: the one that makes other rows of the same teacher smallest."""

import numpy as np
import numpy.typing as npt

from cache.parts.zarr_shard import ArraySpec, encode_array
from cache.rows.codebook import LIST_LENGTH, Codebook, id_dtype, plain_codebook
from cache.rows.codec import encode_rows
from cache.rows.kernels import fill_lists
from cache.rows.sparse_targets import SparseTargets
from cache.rows.spec import TargetSpec

# Memory that the lists of a codebook may take in every process that reads the store.
TABLE_BYTES = 128 << 20
# What is known of an id in general counts as much as this many rows of its context.
PRIOR_ROWS = 4
# Rows that are learned from, at most: more change little, and take seconds.
SAMPLE_ROWS = 1 << 17
# Rows that the candidates are tried on, and what a more elaborate one must save to be worth its memory.
TRIAL_ROWS = 4096
WORTHWHILE = 0.98


def learn_codebook(
    targets: SparseTargets, tokens: npt.NDArray[np.uint32], spec: TargetSpec, vocab_size: int
) -> Codebook:
    """Of plain ids, ids by frequency and lists by context, the one that codes unseen rows in the fewest bytes.

    tokens uint32 [n] are those that the rows follow. The last rows, TRIAL_ROWS or a quarter, are kept from learning
    for the trial.
    """
    targets, tokens = targets.rows(0, min(len(targets), SAMPLE_ROWS)), tokens[:SAMPLE_ROWS]
    cut = len(targets) - min(len(targets) // 4, TRIAL_ROWS)
    seen, unseen = targets.rows(0, cut), targets.rows(cut, len(targets))
    chosen = plain_codebook(vocab_size)
    least = code_bytes(unseen, tokens[cut:], spec, chosen)
    for candidate in (
        frequency_codebook(seen, vocab_size),
        list_codebook(seen, tokens[:cut], vocab_size, not spec.has_exact),
    ):
        size = code_bytes(unseen, tokens[cut:], spec, candidate)
        if size < WORTHWHILE * least:
            chosen, least = candidate, size
    return chosen


def code_bytes(targets: SparseTargets, tokens: npt.NDArray[np.uint32], spec: TargetSpec, codebook: Codebook) -> int:
    """Bytes that the codes of these rows take."""
    packed = encode_rows(targets, tokens, spec, codebook)
    streams = [codes for codes in (packed.first_code, packed.rest_code, packed.sampled_code) if len(codes)]
    return sum(len(encode_array(ArraySpec(c.shape, "uint32", len(c), "pcodec"), c)) for c in streams)


def frequency_codebook(targets: SparseTargets, vocab_size: int) -> Codebook:
    """Codes are ranks by how often an id is an entry."""
    dtype = id_dtype(vocab_size)
    frequency = np.bincount(targets.ids, minlength=vocab_size)
    order = np.argsort(-frequency, kind="stable").astype(dtype)
    return Codebook(order, np.zeros((1, 0), dtype), np.zeros(vocab_size, np.uint32))


def list_codebook(targets: SparseTargets, tokens: npt.NDArray[np.uint32], vocab_size: int, by_token: bool) -> Codebook:
    """Lists by how often ids are entries together; tokens uint32 [n] are those that the rows follow."""
    dtype = id_dtype(vocab_size)
    frequency = np.bincount(targets.ids, minlength=vocab_size)
    order = np.argsort(-frequency, kind="stable")
    width = min(LIST_LENGTH, vocab_size)
    context, others = _contexts(targets, tokens, by_token)
    rows_of = np.bincount(context, minlength=vocab_size)
    most = TABLE_BYTES // (width * dtype.itemsize) - 1
    known = np.argsort(-rows_of, kind="stable")[: min(most, int(np.count_nonzero(rows_of)))]
    list_of = np.zeros(vocab_size, np.uint32)
    list_of[known] = np.arange(1, len(known) + 1)
    lists = np.repeat(list_of[context], np.diff(others.offsets)).astype(np.int64)
    pairs, counts = np.unique(lists * vocab_size + others.ids, return_counts=True)
    ids = pairs % vocab_size
    shares = frequency / max(len(context), 1)
    scores = counts + PRIOR_ROWS * shares[ids]
    by_score = np.lexsort((-scores, pairs // vocab_size))
    starts = np.searchsorted(pairs // vocab_size, np.arange(len(known) + 2))
    table = np.empty((len(known) + 1, width), dtype)
    table[0] = order[:width]
    general = PRIOR_ROWS * shares[order]
    fill_lists(starts, ids[by_score], scores[by_score], order, general, table, np.full(vocab_size, -1, np.int64))
    return Codebook(order.astype(dtype), table, list_of, by_token)


def _contexts(
    targets: SparseTargets, tokens: npt.NDArray[np.uint32], by_token: bool
) -> tuple[npt.NDArray[np.int64], SparseTargets]:
    """Context of each row that has one, int64 [rows], and those rows without the entries that are contexts."""
    counts = targets.counts
    first = np.zeros(len(targets.ids), bool)
    rows = counts > 0 if by_token else targets.exact_counts > 0
    if not by_token:
        first[targets.offsets[:-1][rows]] = True
    kept = np.repeat(rows, counts) & ~first
    left = counts[rows] - (0 if by_token else 1)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(left)])
    others = SparseTargets(offsets, targets.ids[kept], targets.logprobs[kept], targets.log_tail[rows])
    context = tokens[rows] if by_token else targets.ids[first]
    return context.astype(np.int64), others
