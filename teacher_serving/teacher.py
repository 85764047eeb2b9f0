"""What every teacher promises. Token ids go in, never text, so rows and tokens cannot drift apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from cache.spec import SamplingSpec
from cache.targets import SparseTargets


@dataclass(frozen=True, slots=True)
class Scored:
    """targets: n rows for n tokens; rows before `first_row` and the last are empty. token_logprobs: float32 [n]."""

    targets: SparseTargets
    token_logprobs: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Generated:
    """One response. tokens: uint32 [m], the end-of-sequence token included where it came.

    rows: m rows; row i is the distribution that token i was drawn from, before temperature. finished: ended by itself.
    """

    tokens: npt.NDArray[np.uint32]
    rows: SparseTargets
    token_logprobs: npt.NDArray[np.float32]
    finished: bool


class Teacher(Protocol):
    """A model that says what it expects next. Log-probabilities are those of the raw logits at temperature 1."""

    def score(self, sequences: Sequence[npt.NDArray[np.uint32]], first_rows: Sequence[int]) -> list[Scored]:
        """Targets of rows first_rows[i] .. n - 2 of each sequence; row j is the law of token j + 1."""
        ...

    def generate(
        self, prompts: Sequence[npt.NDArray[np.uint32]], seeds: Sequence[int], sampling: SamplingSpec
    ) -> list[Generated]:
        """One response to each prompt; the same seed gives the same draws whatever else is in the batch."""
        ...
