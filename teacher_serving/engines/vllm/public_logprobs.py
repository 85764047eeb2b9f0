"""Rows from the log-probabilities that vLLM hands out to everyone: the k largest, flat."""

from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import InputError
from cache.rows.spec import TargetSpec
from teacher_serving.reduction.reducer import Rows
from teacher_serving.reduction.row_arrays import cut_to_nucleus, rows_from_topk, take_rows
from teacher_serving.teacher import Request


def only_largest(targets: TargetSpec) -> bool:
    """Whether the k largest log-probabilities are all that the targets need."""
    return not targets.has_sampled and not targets.entropy and not targets.temperatures


def scored_rows(flat: Any, request: Request, targets: TargetSpec, vocab_size: int) -> Rows:
    """The wanted rows of a scored request, from the log-probabilities of its whole prompt.

    vLLM's position t is the law of token t, so it belongs to row t - 1; position 0 is empty.
    """
    first = int(request.rows[0]) if len(request.rows) else len(request.tokens) - 1
    rows = _rows(flat, first + 1, len(request.tokens), targets, vocab_size)
    picked = request.rows - first
    return Rows(take_rows(rows.targets, picked), rows.token_logprobs[picked])


def written_rows(flat: Any, n: int, targets: TargetSpec, vocab_size: int) -> Rows:
    """Rows that the n tokens of a response were drawn from."""
    return _rows(flat, 0, n, targets, vocab_size)


def _rows(flat: Any, start: int, stop: int, targets: TargetSpec, vocab_size: int) -> Rows:
    own, ids, logprobs = _rectangle(flat, start, stop, targets.k)
    rows = rows_from_topk(ids, logprobs, vocab_size)
    return Rows(cut_to_nucleus(rows, targets.mass) if targets.mode == "nucleus" else rows, own)


def _rectangle(
    flat: Any, start: int, stop: int, k: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Positions start:stop of vLLM's flat log-probabilities: own values [n], and top ids and values [n, k].

    Each position holds the token itself first, then the k largest in falling order.
    """
    n = stop - start
    if n <= 0:
        return np.zeros(0, np.float32), np.zeros((0, k), np.int64), np.zeros((0, k), np.float32)
    first, last = flat.start_indices[start], flat.end_indices[stop - 1]
    if last - first != n * (k + 1):
        raise InputError(
            f"vLLM returned {last - first} log-probabilities for {n} positions of k = {k}; is k too large?"
        )
    ids = np.asarray(flat.token_ids[first:last], dtype=np.int64).reshape(n, k + 1)
    logprobs = np.asarray(flat.logprobs[first:last], dtype=np.float32).reshape(n, k + 1)
    return logprobs[:, 0], ids[:, 1:], logprobs[:, 1:]
