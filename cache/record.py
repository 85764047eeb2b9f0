"""Record: all that the store holds for one example."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cache.example import TokenizedExample
from cache.targets import SparseTargets


@dataclass(frozen=True, slots=True)
class Record:
    """One captured example.

    key: identity in the store. For a response that the teacher wrote it is the key of its prompt and sample number,
        known before the text is.
    targets: n rows, one a token; only rows that precede a response token have entries.
    token_logprobs: float32 [n], the teacher's log-probability of the token itself, NaN where it was not asked.
    """

    key: str
    tokenized: TokenizedExample
    targets: SparseTargets
    token_logprobs: npt.NDArray[np.float32]

    @property
    def target_rows(self) -> int:
        """Rows that hold a distribution."""
        return int(np.count_nonzero(self.targets.counts))
