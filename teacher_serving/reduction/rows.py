"""Rows: what a reduction returns."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cache.rows.sparse_targets import SparseTargets, concatenate, empty_targets


@dataclass(frozen=True, slots=True)
class Rows:
    """Sparse rows and the log-probability of the token after each.

    targets: n rows. token_logprobs: float32 [n]; NaN where the next token was not given.
    """

    targets: SparseTargets
    token_logprobs: npt.NDArray[np.float32]


def concatenate_rows(parts: Sequence[Rows]) -> Rows:
    """Return all rows of all parts in order."""
    if not parts:
        return Rows(empty_targets(0), np.zeros(0, np.float32))
    token_logprobs = np.concatenate([part.token_logprobs for part in parts])
    return Rows(concatenate([part.targets for part in parts]), token_logprobs)
