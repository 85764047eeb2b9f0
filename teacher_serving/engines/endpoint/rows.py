"""Sparse rows from the log-probabilities that a service returns, and the answers to refused requests."""

from collections.abc import Iterable, Sequence

import numpy as np

from cache.rows.sparse_targets import SparseTargets, empty_targets
from cache.rows.spec import TargetSpec
from teacher_serving.reduction.row_arrays import cut_to_nucleus, rows_from_topk
from teacher_serving.teacher import Generated, Request, Scored

TopLogprobs = Iterable[tuple[int, float]]


def rows_from_top_logprobs(
    positions: Sequence[TopLogprobs], requested: int, targets: TargetSpec, vocab_size: int
) -> SparseTargets:
    """Make one row a position from its k largest (id, log-probability) pairs, which may be in any order.

    requested: number of pairs in the request. A service may return one more, of the sampled token; only the `requested`
    largest are used, because tokens between them and the sampled one may be missing. Ids from vocab_size on, and
    repeated ids, are left to the tail.
    """
    ids = np.zeros((len(positions), targets.k), np.int64)
    logprobs = np.full(ids.shape, -np.inf, np.float32)
    for row, pairs in enumerate(positions):
        entries: dict[int, float] = {}
        for id_, logprob in sorted(pairs, key=lambda pair: -pair[1])[:requested]:
            if id_ < vocab_size and len(entries) < targets.k:
                entries.setdefault(id_, logprob)
        ids[row, : len(entries)] = list(entries)
        logprobs[row, : len(entries)] = list(entries.values())
    rows = rows_from_topk(ids, logprobs, vocab_size)
    return cut_to_nucleus(rows, targets.mass) if targets.mode == "nucleus" and len(rows.ids) else rows


def refused_score(request: Request, reason: str) -> Scored:
    """The result of scoring a request that the service refused."""
    n = len(request.tokens)
    return Scored(empty_targets(n), np.full(n, np.nan, np.float32), reason)


def refused_response(reason: str) -> Generated:
    """The result of a request for a response that the service refused."""
    return Generated(np.zeros(0, np.uint32), empty_targets(0), np.zeros(0, np.float32), False, reason)
