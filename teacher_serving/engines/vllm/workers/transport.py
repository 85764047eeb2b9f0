"""Transport of rows from vLLM's workers to the teacher, as bytes; and sorting them by request."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load, save

from cache.errors import LogitbankError
from cache.rows.sparse_targets import SparseTargets
from teacher_serving.reduction.row_arrays import take_rows
from teacher_serving.reduction.rows import Rows, concatenate_rows

# Rows start with the length of a header, eight bytes that are never these.
FAILURE_PREFIX = b"failure: "


def pack_rows(rows: Rows, requests: npt.NDArray[np.int64], positions: npt.NDArray[np.int64]) -> bytes:
    """Serialise n rows with the request index and the position of each, int64 [n]."""
    arrays: dict[str, Any] = {"requests": requests, "positions": positions, "token_logprobs": rows.token_logprobs}
    for name in rows.targets.__slots__:
        if (values := getattr(rows.targets, name)) is not None:
            arrays[name] = values
    return bytes(save({name: np.ascontiguousarray(values) for name, values in arrays.items()}))


def pack_failure(reason: str) -> bytes:
    """Serialise the reason why a worker has no rows."""
    return FAILURE_PREFIX + reason.encode()


def unpack_rows(data: bytes) -> tuple[Rows, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the rows, request indices and positions given to pack_rows. Raises LogitbankError for a failure."""
    if data.startswith(FAILURE_PREFIX):
        raise LogitbankError(f"vLLM's workers could not make rows: {data.removeprefix(FAILURE_PREFIX).decode()}")
    arrays = load(data)
    requests, positions, token_logprobs = (arrays.pop(name) for name in ("requests", "positions", "token_logprobs"))
    return Rows(SparseTargets(**arrays), token_logprobs), requests, positions


def group_rows_by_request(packed: Sequence[bytes], requested_positions: Sequence[npt.NDArray[np.int64]]) -> list[Rows]:
    """Return the rows of each request, in the order of `requested_positions`.

    packed: one result of pack_rows from each rank; b"" from ranks without rows. requested_positions: ascending
    positions for requests 0, 1, ... Raises LogitbankError if rows are missing.
    """
    parts = [unpack_rows(data) for data in packed if data]
    rows = concatenate_rows([part[0] for part in parts])
    requests = np.concatenate([np.zeros(0, np.int64), *(part[1] for part in parts)])
    positions = np.concatenate([np.zeros(0, np.int64), *(part[2] for part in parts)])
    # Sort by request and position. If vLLM computed a prompt twice, keep the later of two equal rows.
    order = np.lexsort((np.arange(len(requests)), positions, requests))
    sorted_keys = np.stack([requests[order], positions[order]])
    order = order[np.append((np.diff(sorted_keys) != 0).any(axis=0), True)[: len(order)]]
    starts = np.searchsorted(requests[order], np.arange(len(requested_positions) + 1))
    result = []
    for i, expected in enumerate(requested_positions):
        indices = order[starts[i] : starts[i + 1]]
        # Generation may have drawn one token more than it returned.
        indices = indices[np.isin(positions[indices], expected)]
        if not np.array_equal(positions[indices], expected):
            raise LogitbankError(
                f'vLLM\'s workers returned {len(indices)} of {len(expected)} rows; set engine.reduction = "public"'
            )
        result.append(Rows(take_rows(rows.targets, indices), rows.token_logprobs[indices]))
    return result
