"""Learn a codebook from rows: the one that makes other rows of the same teacher smallest."""

import numpy as np
import numpy.typing as npt

from cache.parts.zarr_shard import ArraySpec, encode_array
from cache.rows.codebook import LIST_LENGTH, Codebook, id_dtype, listless_codebook, plain_codebook
from cache.rows.codec import encode_rows
from cache.rows.shared_kernels import fill_lists
from cache.rows.sparse_targets import SparseTargets
from cache.rows.spec import TargetSpec

# Memory for the lists of a codebook, in every process that reads the store.
MAX_LISTED_BYTES = 128 << 20
# Weight of an id's overall frequency against its frequency in one context, in rows of that context.
PRIOR_ROWS = 4
# Maximum number of entries to learn from: more rows change little and take seconds.
SAMPLE_ENTRIES = 1 << 23
# Rows for the comparison of candidates. A more complex codebook must save 2% to be worth its memory.
TRIAL_ROWS = 4096
WORTHWHILE = 0.98


def learn_codebook(
    targets: SparseTargets, tokens: npt.NDArray[np.uint32], spec: TargetSpec, vocab_size: int
) -> Codebook:
    """Of plain ids, ids by frequency and lists by context, return the one that codes unseen rows in the fewest bytes.

    tokens: uint32 [n], the tokens that the rows follow. The last rows (TRIAL_ROWS, or a quarter if that is less) are
    not learned from: the candidates are compared on them.
    """
    enough = int(np.searchsorted(targets.offsets[1:], SAMPLE_ENTRIES)) + 1
    targets, tokens = targets.rows(0, min(len(targets), enough)), tokens[:enough]
    cut = len(targets) - min(len(targets) // 4, TRIAL_ROWS)
    seen, unseen = targets.rows(0, cut), targets.rows(cut, len(targets))
    best = plain_codebook(vocab_size)
    best_size = code_bytes(unseen, tokens[cut:], spec, best)
    candidates = [frequency_codebook(seen, vocab_size), list_codebook(seen, tokens[:cut], vocab_size, by_token=True)]
    if spec.has_exact:
        candidates.append(list_codebook(seen, tokens[:cut], vocab_size, by_token=False))
    for candidate in candidates:
        size = code_bytes(unseen, tokens[cut:], spec, candidate)
        if is_worthwhile(size, best_size):
            best, best_size = candidate, size
    return best


def is_worthwhile(size: int, best_size: int) -> bool:
    """Whether a more complex codebook, which needs more memory, saves enough bytes."""
    return size < WORTHWHILE * best_size


def code_bytes(targets: SparseTargets, tokens: npt.NDArray[np.uint32], spec: TargetSpec, codebook: Codebook) -> int:
    """Bytes of the compressed codes of these rows."""
    encoded = encode_rows(targets, tokens, spec, codebook)
    ends = [*encoded.code_starts[1:], len(encoded.codes)]
    streams = [encoded.codes[start:end] for start, end in zip(encoded.code_starts, ends, strict=True)]
    streams = [codes for codes in (*streams, encoded.sampled_code) if len(codes)]
    return sum(len(encode_array(ArraySpec(c.shape, "uint32", len(c), "pcodec"), c)) for c in streams)


def frequency_codebook(targets: SparseTargets, vocab_size: int) -> Codebook:
    """A codebook without lists: the code of an id is its rank by number of entries."""
    dtype = id_dtype(vocab_size)
    frequency = np.bincount(targets.ids, minlength=vocab_size)
    return listless_codebook(np.argsort(-frequency, kind="stable").astype(dtype))


def list_codebook(targets: SparseTargets, tokens: npt.NDArray[np.uint32], vocab_size: int, by_token: bool) -> Codebook:
    """A codebook with a list per context, ordered by how often an id is an entry in that context.

    tokens: uint32 [n], the tokens that the rows follow. by_token: the context of a row is its token; otherwise it is
    the first entry of the row.
    """
    dtype = id_dtype(vocab_size)
    frequency = np.bincount(targets.ids, minlength=vocab_size)
    order = np.argsort(-frequency, kind="stable")
    context, others = _contexts(targets, tokens, by_token)
    rows_of = np.bincount(context, minlength=vocab_size)
    contexts = np.argsort(-rows_of, kind="stable")[: int(np.count_nonzero(rows_of))]
    list_of = np.zeros(vocab_size, np.uint32)
    list_of[contexts] = np.arange(1, len(contexts) + 1)
    lists = np.repeat(list_of[context], np.diff(others.offsets)).astype(np.int64)
    pairs, counts = np.unique(lists * vocab_size + others.ids, return_counts=True)
    ids = pairs % vocab_size
    shares = frequency / max(len(context), 1)
    scores = counts + PRIOR_ROWS * shares[ids]
    by_score = np.lexsort((-scores, pairs // vocab_size))
    starts = np.searchsorted(pairs // vocab_size, np.arange(len(contexts) + 2))
    longest = min(LIST_LENGTH, vocab_size)
    listed = np.empty(len(contexts) * longest, dtype)
    list_start = np.zeros(len(contexts) + 2, np.int64)
    placed = np.full(vocab_size, -1, np.int64)
    fill_lists(
        starts, ids[by_score], scores[by_score], order, PRIOR_ROWS * shares[order], longest, listed, list_start, placed
    )
    # Frequent contexts come first, so the rarest are left out.
    kept = int(np.searchsorted(list_start, MAX_LISTED_BYTES // dtype.itemsize, side="right")) - 1
    list_of[list_of >= kept] = 0
    list_start = list_start[: kept + 1]
    return Codebook(order.astype(dtype), listed[: list_start[-1]].copy(), list_start, list_of, by_token)


def _contexts(
    targets: SparseTargets, tokens: npt.NDArray[np.uint32], by_token: bool
) -> tuple[npt.NDArray[np.int64], SparseTargets]:
    """Context of each row that has one, int64 [rows], and these rows without the entries that are contexts."""
    counts = targets.counts
    is_context = np.zeros(len(targets.ids), bool)
    rows = counts > 0 if by_token else targets.exact_counts > 0
    if not by_token:
        is_context[targets.offsets[:-1][rows]] = True
    selected = np.repeat(rows, counts) & ~is_context
    remaining = counts[rows] - (0 if by_token else 1)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(remaining)])
    others = SparseTargets(offsets, targets.ids[selected], targets.logprobs[selected], targets.log_tail[rows])
    context = tokens[rows] if by_token else targets.ids[is_context]
    return context.astype(np.int64), others
