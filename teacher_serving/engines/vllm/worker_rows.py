"""Rows on their way from vLLM's workers to the teacher: bytes, which any executor carries, and back by request."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import LogitbankError
from cache.rows.sparse_targets import SparseTargets
from teacher_serving.reduction.reducer import Rows, concatenate_rows
from teacher_serving.reduction.row_arrays import take_rows

# Not how an archive starts.
FAILURE = b"failure: "


def pack_rows(rows: Rows, requests: npt.NDArray[np.int64], positions: npt.NDArray[np.int64]) -> bytes:
    """Rows with the request and the position of each, int64 [n]."""
    arrays: dict[str, Any] = {"requests": requests, "positions": positions, "own": rows.token_logprobs}
    for name in rows.targets.__slots__:
        if (values := getattr(rows.targets, name)) is not None:
            arrays[name] = values
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def pack_failure(reason: str) -> bytes:
    """Why there are no rows."""
    return FAILURE + reason.encode()


def unpack_rows(data: bytes) -> tuple[Rows, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """What pack_rows packed. Raises LogitbankError for a failure."""
    if data.startswith(FAILURE):
        raise LogitbankError(f"vLLM's workers could not make rows: {data.removeprefix(FAILURE).decode()}")
    arrays = dict(np.load(io.BytesIO(data), allow_pickle=False))
    requests, positions, own = (arrays.pop(name) for name in ("requests", "positions", "own"))
    return Rows(SparseTargets(**arrays), own), requests, positions


def rows_by_request(packed: Sequence[bytes], wanted: Sequence[npt.NDArray[np.int64]]) -> list[Rows]:
    """The wanted rows (positions, rising) of requests 0, 1, ... from what the ranks sent, b"" where one holds none.

    Raises LogitbankError where rows are missing.
    """
    parts = [unpack_rows(data) for data in packed if data]
    rows = concatenate_rows([part[0] for part in parts])
    requests = np.concatenate([np.zeros(0, np.int64), *(part[1] for part in parts)])
    positions = np.concatenate([np.zeros(0, np.int64), *(part[2] for part in parts)])
    # By request and position; of rows made twice (a prompt was computed again), the later one.
    order = np.lexsort((np.arange(len(requests)), positions, requests))
    ranked = np.stack([requests[order], positions[order]])
    order = order[np.append((np.diff(ranked) != 0).any(axis=0), True)[: len(order)]]
    starts = np.searchsorted(requests[order], np.arange(len(wanted) + 1))
    result = []
    for i, places in enumerate(wanted):
        mine = order[starts[i] : starts[i + 1]]
        # Generation may have drawn one token more than it gave out.
        mine = mine[np.isin(positions[mine], places)]
        if not np.array_equal(positions[mine], places):
            raise LogitbankError(
                f'vLLM\'s workers gave {len(mine)} of {len(places)} rows; set engine.reduction = "public"'
            )
        result.append(Rows(take_rows(rows.targets, mine), rows.token_logprobs[mine]))
    return result
