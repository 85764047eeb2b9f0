"""What services tell of a position, to rows: lists of ids with their log-probabilities in, sparse targets out."""

from collections.abc import Iterable, Sequence

import numpy as np

from cache.rows.sparse_targets import SparseTargets, empty_targets
from cache.rows.spec import TargetSpec
from teacher_serving.reduction.row_arrays import cut_to_nucleus, rows_from_topk
from teacher_serving.teacher import Generated, Request, Scored

Told = Iterable[tuple[int, float]]


def rows_from_told(positions: Sequence[Told], asked: int, targets: TargetSpec, vocab_size: int) -> SparseTargets:
    """One row a position, of the k largest of the (id, log-probability) pairs that were told of it, in any order.

    asked: pairs that were asked for; one more is of the token that came, and may have others before it that are not
    told. What is told of ids from vocab_size on, or of an id again, is left to the tail.
    """
    ids = np.zeros((len(positions), targets.k), np.int64)
    logprobs = np.full(ids.shape, -np.inf, np.float32)
    for row, told in enumerate(positions):
        kept: dict[int, float] = {}
        for id_, logprob in sorted(told, key=lambda pair: -pair[1])[:asked]:
            if id_ < vocab_size and len(kept) < targets.k:
                kept.setdefault(id_, logprob)
        ids[row, : len(kept)] = list(kept)
        logprobs[row, : len(kept)] = list(kept.values())
    rows = rows_from_topk(ids, logprobs, vocab_size)
    return cut_to_nucleus(rows, targets.mass) if targets.mode == "nucleus" and len(rows.ids) else rows


def refused_score(request: Request, reason: str) -> Scored:
    n = len(request.tokens)
    return Scored(empty_targets(n), np.full(n, np.nan, np.float32), reason)


def refused_response(reason: str) -> Generated:
    return Generated(np.zeros(0, np.uint32), empty_targets(0), np.zeros(0, np.float32), False, reason)
