"""Rows of every kind of target from the same logits, a block of sequences at a time."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks.fidelity.source.teacher import Sequences, Teacher
from benchmarks.fidelity.targets import Rows
from cache.examples.example import Example, Segment, TokenizedExample
from cache.rows.record import Record, Window
from cache.rows.sparse_targets import SparseTargets, concatenate, empty_targets
from cache.rows.spec import TargetSpec
from teacher_serving.reduction.draws import row_uniforms
from teacher_serving.reduction.reducer import Reducer

Windows = dict[Rows | None, list[Window]]
# Logits, tokens that follow (int64 [n]) and uniform numbers (float64 [n, numbers]) to rows.
Reduce = Callable[
    [Tensor, npt.NDArray[np.int64], npt.NDArray[np.float64]], tuple[SparseTargets, npt.NDArray[np.float32]]
]


def reduced(
    teacher: Teacher, sequences: Sequences, kinds: Sequence[Rows], redraw: int = 0
) -> Iterator[dict[Rows, list[Record]]]:
    """Records of the sequences, block by block. redraw: places the draws anew; 0 is what a capture draws.

    Examples are numbered from the first of these sequences, and their keys with them.
    """
    ways = {kind: reduce_of(kind, teacher.vocab_size) for kind in kinds}
    length = sequences.tokens.shape[1]
    start = 0
    for part in sequences.blocks(teacher.block(length)):
        tokens = part.tokens.numpy().astype(np.uint32)
        logits = teacher.logits(part.hidden)
        examples = [tokenized(row, start + i) for i, row in enumerate(tokens)]
        block: dict[Rows, list[Record]] = {}
        for kind, reduce in ways.items():
            uniforms = np.concatenate([draws_of(e.key, redraw, length - 1, kind.spec) for e in examples])
            targets, token_logprobs = reduce(logits, tokens[:, 1:].reshape(-1).astype(np.int64), uniforms)
            split = np.split(token_logprobs, len(examples))
            block[kind] = [
                record(example, targets.rows(i * (length - 1), (i + 1) * (length - 1)), own)
                for i, (example, own) in enumerate(zip(examples, split, strict=True))
            ]
        start += len(part)
        yield block


def windows_of(teacher: Teacher, sequences: Sequences, kinds: Sequence[Rows]) -> Windows:
    """What a student reads, straight from the reduction, without a store and its rounding."""
    result: Windows = {kind: [] for kind in kinds}
    for block in reduced(teacher, sequences, kinds):
        for kind, records in block.items():
            result[kind] += [each.window for each in records]
    return result


def reduce_of(kind: Rows, vocab: int) -> Reduce:
    """The product's reduction, or the one that it has not."""
    if kind.exact_from:
        return lambda logits, following, uniforms: mixed_rows(logits, following, uniforms[:, 0], kind)
    reducer = Reducer(kind.spec, vocab)

    def reduce(
        logits: Tensor, following: npt.NDArray[np.int64], uniforms: npt.NDArray[np.float64]
    ) -> tuple[SparseTargets, npt.NDArray[np.float32]]:
        rows = reducer.reduce(logits, following, uniforms)
        return rows.targets, rows.token_logprobs

    return reduce


def mixed_rows(
    logits: Tensor, following: npt.NDArray[np.int64], uniforms: npt.NDArray[np.float64], kind: Rows
) -> tuple[SparseTargets, npt.NDArray[np.float32]]:
    """Entries from kind.exact_from up, and below them systematic draws of the threshold, a few rows at a time."""
    parts = [_mixed_block(logits[i : i + 256], uniforms[i : i + 256], kind) for i in range(0, len(logits), 256)]
    own = logits.gather(1, torch.from_numpy(following).to(logits.device)[:, None])[:, 0] - logits.logsumexp(-1)
    return concatenate(parts), own.clamp(max=0).cpu().numpy()


def _mixed_block(logits: Tensor, uniforms: npt.NDArray[np.float64], kind: Rows) -> SparseTargets:
    unit = kind.spec.threshold
    p = logits.double().softmax(-1)
    is_exact = p >= kind.exact_from
    rest = torch.where(is_exact, 0.0, p)
    points = torch.from_numpy(uniforms).to(p.device)[:, None]
    draws = torch.ceil(rest.cumsum(-1) / unit - points).clamp(min=0).diff(dim=-1, prepend=p.new_zeros(len(p), 1))
    rows, ids = (is_exact | (draws > 0)).nonzero(as_tuple=True)
    exact = is_exact[rows, ids]
    values = torch.where(exact, p[rows, ids], draws[rows, ids] * unit).log().clamp(max=0)
    arrays = [x.cpu().numpy() for x in (rows, ids, values, exact, rest.sum(-1).log().clamp(max=0), is_exact.sum(-1))]
    row, entry, logprob, head, log_tail, heads = arrays
    # Exact entries first, by falling probability; then the draws by id.
    order = np.lexsort((np.where(head, -logprob, entry), ~head, row))
    log_tail = np.where(heads > 0, np.minimum(log_tail, -1e-12), 0.0).astype(np.float32)
    counts = np.bincount(row, minlength=len(logits))
    return SparseTargets(
        np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]),
        entry[order].astype(np.uint32),
        logprob[order].astype(np.float32),
        np.where((heads > 0) & (log_tail == 0), np.float32(-1e-7), log_tail).astype(np.float32),
        heads.astype(np.int64),
    )


def draws_of(key: str, redraw: int, rows: int, spec: TargetSpec) -> npt.NDArray[np.float64]:
    """The uniform numbers of an example's rows."""
    return row_uniforms(spec, f"{int(key, 16) ^ redraw:032x}", np.arange(rows))


def tokenized(tokens: npt.NDArray[np.uint32], number: int) -> TokenizedExample:
    """Every token but the first carries a loss."""
    segments = np.full(len(tokens), Segment.RESPONSE, np.uint8)
    segments[0] = Segment.PROMPT
    return TokenizedExample(Example(str(number), ()), tokens, segments)


def record(example: TokenizedExample, rows: SparseTargets, own: npt.NDArray[np.float32]) -> Record:
    """The last token has no target, the first no log-probability."""
    own = np.concatenate([np.full(1, np.nan, np.float32), own])
    return Record(example.key, example, concatenate([rows, empty_targets(1)]), own)


def bare_windows(tokens: Tensor) -> list[Window]:
    """Windows without targets of tokens int64 [N, L], for what needs none."""
    examples = [tokenized(row, i) for i, row in enumerate(tokens.numpy().astype(np.uint32))]
    own = np.full(tokens.shape[1], np.nan, np.float32)
    return [Window(e.tokens, e.segments, empty_targets(len(own)), own) for e in examples]
