"""Windows as tensors of torch: flat over all tokens, the targets padded to the largest row, as training uses them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cache.rows.record import Window
from cache.rows.sparse_targets import concatenate

if TYPE_CHECKING:
    from torch import Tensor


def tensor_bytes(tokens: int, rows: int, entries: int) -> int:
    """Bytes of the tensors of so many tokens and of rows with so many entries together, without padding."""
    return 13 * tokens + 24 * rows + 12 * entries


def padded_bytes(windows: Sequence[Window]) -> int:
    """Bytes of the padded tensors of these windows."""
    counts = [window.targets.counts for window in windows]
    rows = sum(int(np.count_nonzero(each)) for each in counts)
    width = max((int(each.max(initial=0)) for each in counts), default=0)
    return tensor_bytes(sum(map(len, windows)), rows, rows * width)


def make_tensors(windows: Sequence[Window]) -> "dict[str, Tensor]":
    """The tensors of some examples, see RecordSequence.to_torch."""
    import torch

    targets = concatenate([window.targets for window in windows])
    tokens = np.concatenate([np.zeros(0, np.uint32), *(window.tokens for window in windows)]).astype(np.int64)
    starts = np.cumsum([0, *map(len, windows)])
    rows = np.flatnonzero(targets.counts)
    ids, log_p = targets.dense(rows, int(targets.counts.max(initial=0)))
    following = np.append(tokens[1:], -1)[: len(tokens)]
    following[starts[1:][np.diff(starts) > 0] - 1] = -1  # nothing follows the last token of an example
    arrays = {
        "tokens": tokens,
        "segments": np.concatenate([np.zeros(0, np.uint8), *(window.segments for window in windows)]),
        "token_logprobs": np.concatenate([np.zeros(0, np.float32), *(window.token_logprobs for window in windows)]),
        "starts": starts,
        "rows": rows,
        "labels": following[rows],
        "ids": ids,
        "log_p": log_p,
        "log_tail": targets.log_tail[rows],
    }
    optional = {"exact": targets.exact, "entropy": targets.entropy, "log_normalizers": targets.log_normalizers}
    arrays |= {name: values[rows] for name, values in optional.items() if values is not None}
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
