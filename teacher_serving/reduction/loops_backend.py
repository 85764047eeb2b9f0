"""The reduction by compiled loops on a CPU: the host's side. See kernels.py."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cache.rows.spec import TargetSpec

# Rows of one call of the kernels. If logits need a float32 copy, that copy stays in the CPU cache.
ROWS_PER_CALL = 8


def reduce_with_loops(
    logits: torch.Tensor,
    next_tokens: npt.NDArray[np.int64],
    uniforms: npt.NDArray[np.float64],
    targets: TargetSpec,
    pool: ThreadPoolExecutor | None = None,
) -> Mapping[str, npt.NDArray[Any]]:
    """Reduce logits [n, vocabulary] to the arrays of kernels.ReducedArrays, by name; see Reducer for the arguments."""
    from teacher_serving.reduction.kernels import ReducedArrays, ReductionRule, reduce_rows

    n = len(logits)
    max_entries = min(targets.max_entries, logits.shape[1])
    rule = ReductionRule(
        max_entries,
        targets.mass if targets.mode == "nucleus" else 2.0,
        targets.threshold,
        targets.draws,
        targets.entropy,
        np.asarray(targets.temperatures, np.float64),
    )
    out = ReducedArrays(
        ids=np.zeros((n, max_entries), np.int64),
        logprobs=np.zeros((n, max_entries), np.float32),
        exact=np.zeros(n, np.int64),
        counts=np.zeros(n, np.int64),
        log_tail=np.zeros(n, np.float32),
        token_logprobs=np.full(n, np.nan, np.float32),
        entropy=np.full(n, np.nan, np.float32),
        log_normalizers=np.zeros((n, len(targets.temperatures)), np.float32),
    )
    needs_copy = logits.dtype != torch.float32 or logits.stride(1) != 1

    def reduce_from(start: int) -> None:
        rows = slice(start, min(start + ROWS_PER_CALL, n))
        block = logits[rows].float().contiguous() if needs_copy else logits[rows]
        part = ReducedArrays._make(values[rows] for values in out)
        reduce_rows(block.numpy(), next_tokens[rows], uniforms[rows], rule, part)

    starts = range(0, n, ROWS_PER_CALL)
    if pool and len(starts) > 1:
        list(pool.map(reduce_from, starts))
    else:
        for start in starts:
            reduce_from(start)
    return out._asdict()
