"""Sparse rows from the log-probabilities that a service returns."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from cache.errors import InputError
from cache.rows.sparse_targets import SparseTargets
from cache.rows.spec import TargetSpec
from teacher_serving.engines.endpoint.failures import FormError
from teacher_serving.reduction.row_arrays import cut_to_nucleus, rows_from_topk
from teacher_serving.reduction.rows import Rows

TopLogprobs = Iterable[tuple[int, float]]

# Exceptions of parsing an answer that does not have the expected form.
PARSE_ERRORS = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError)
# Rounding can make a log-probability slightly larger than 0.
ROUNDING = 1e-3


def rows_from_top_logprobs(
    positions: Sequence[TopLogprobs], requested: int, targets: TargetSpec, vocab_size: int
) -> SparseTargets:
    """Make one row a position from its k largest (id, log-probability) pairs, which may be in any order.

    requested: number of pairs in the request. A service may return one more, of the sampled token; only the `requested`
    largest are used, because tokens between them and the sampled one may be missing. Ids from vocab_size on, and
    repeated ids, are left to the tail. Raises FormError for values that are no log-probabilities.
    """
    ids = np.zeros((len(positions), targets.k), np.int64)
    logprobs = np.full(ids.shape, -np.inf, np.float32)
    for row, pairs in enumerate(positions):
        entries: dict[int, float] = {}
        for id_, logprob in sorted(_checked(pairs), key=lambda pair: -pair[1])[:requested]:
            if id_ < vocab_size and len(entries) < targets.k:
                entries.setdefault(id_, logprob)
        ids[row, : len(entries)] = list(entries)
        logprobs[row, : len(entries)] = list(entries.values())
    rows = rows_from_topk(ids, logprobs, vocab_size)
    return cut_to_nucleus(rows, targets.mass) if targets.mode == "nucleus" and len(rows.ids) else rows


def own_logprobs(values: Sequence[float]) -> npt.NDArray[np.float32]:
    """The log-probabilities of the tokens themselves, float32 [n]. Raises FormError for values that are none."""
    checked = [value for _, value in _checked((0, float(value)) for value in values)]
    return np.minimum(np.asarray(checked, np.float32), 0.0)


def require_valid(rows: Rows, vocab_size: int) -> None:
    """Raise FormError unless the rows can be stored."""
    try:
        rows.targets.validate(vocab_size, "the service's log-probabilities are no distribution")
    except InputError as error:
        raise FormError(str(error)) from None


def _checked(pairs: TopLogprobs) -> Iterable[tuple[int, float]]:
    for id_, value in pairs:
        if math.isnan(value) or value > ROUNDING:
            raise FormError(f"the service's log-probabilities are not valid: one is {value}")
        yield id_, value
