"""Rows from the log-probabilities of vLLM's public interface: the k largest of each position, in its flat form."""

from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import InputError
from cache.rows.spec import TargetSpec
from teacher_serving.reduction.row_arrays import cut_to_nucleus, rows_from_topk, take_rows
from teacher_serving.reduction.rows import Rows
from teacher_serving.teacher import Request


def needs_top_k_only(targets: TargetSpec) -> bool:
    """Whether the targets can be made from the k largest log-probabilities."""
    return not targets.has_sampled and not targets.entropy and not targets.temperatures


def prompt_rows(flat: Any, request: Request, targets: TargetSpec, vocab_size: int) -> Rows:
    """Make the requested rows of a prompt from the log-probabilities of the whole prompt.

    Position t of vLLM's list is the distribution of token t, which is row t - 1. Position 0 is empty.
    """
    first = int(request.rows[0]) if len(request.rows) else len(request.tokens) - 1
    rows = _make_rows(flat, first + 1, len(request.tokens), targets, vocab_size)
    indices = request.rows - first
    return Rows(take_rows(rows.targets, indices), rows.token_logprobs[indices])


def response_rows(flat: Any, n: int, targets: TargetSpec, vocab_size: int) -> Rows:
    """Make the rows that the n tokens of a response were drawn from."""
    return _make_rows(flat, 0, n, targets, vocab_size)


def _make_rows(flat: Any, start: int, stop: int, targets: TargetSpec, vocab_size: int) -> Rows:
    token_logprobs, ids, logprobs = _reshape_flat(flat, start, stop, targets.k)
    rows = rows_from_topk(ids, logprobs, vocab_size)
    return Rows(cut_to_nucleus(rows, targets.mass) if targets.mode == "nucleus" else rows, token_logprobs)


def _reshape_flat(
    flat: Any, start: int, stop: int, k: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return positions start:stop as log-probabilities of the tokens [n], and ids and log-probabilities [n, k].

    Each position contains the token itself first, then the k largest in descending order. Raises InputError if vLLM
    returned fewer.
    """
    n = stop - start
    if n <= 0:
        return np.zeros(0, np.float32), np.zeros((0, k), np.int64), np.zeros((0, k), np.float32)
    first, end = flat.start_indices[start], flat.end_indices[stop - 1]
    if end - first != n * (k + 1):
        raise InputError(
            f"vLLM returned {end - first} log-probabilities instead of {n * (k + 1)} ({n} positions, targets.k = {k}); "
            "lower targets.k"
        )
    ids = np.asarray(flat.token_ids[first:end], dtype=np.int64).reshape(n, k + 1)
    logprobs = np.asarray(flat.logprobs[first:end], dtype=np.float32).reshape(n, k + 1)
    return logprobs[:, 0], ids[:, 1:], logprobs[:, 1:]
