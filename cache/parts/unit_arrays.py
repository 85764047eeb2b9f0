"""The records of a unit as arrays, one example after the other."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cache.rows.record import Record
from cache.rows.sparse_targets import SparseTargets, concatenate


@dataclass(frozen=True, slots=True)
class UnitArrays:
    """The columns of n tokens.

    tokens: uint32 [n]. segments: uint8 [n]. token_logprobs: float32 [n]. targets: n rows. starts: int64 [examples + 1],
    first token of each example, and n.
    """

    tokens: npt.NDArray[np.uint32]
    segments: npt.NDArray[np.uint8]
    token_logprobs: npt.NDArray[np.float32]
    targets: SparseTargets
    starts: npt.NDArray[np.int64]

    @property
    def target_rows(self) -> npt.NDArray[np.int64]:
        """Number of rows with a target of each example, int64 [examples]."""
        before = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.targets.counts > 0)])
        return np.asarray(np.diff(before[self.starts]))


def gather(records: Sequence[Record]) -> UnitArrays:
    """The arrays of at least one record."""
    lengths = [len(record.tokenized.tokens) for record in records]
    return UnitArrays(
        np.concatenate([record.tokenized.tokens for record in records]),
        np.concatenate([record.tokenized.segments for record in records]),
        np.concatenate([record.token_logprobs for record in records]),
        concatenate([record.targets for record in records]),
        np.concatenate([np.zeros(1, np.int64), np.cumsum(np.asarray(lengths, np.int64))]),
    )
