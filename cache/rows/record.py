"""Record: all that the store holds for one example. Window: the arrays of a run of its tokens."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cache.examples.example import TokenizedExample
from cache.rows.sparse_targets import SparseTargets


@dataclass(frozen=True, slots=True)
class Window:
    """Consecutive tokens of one example, as a model is trained on them: no texts.

    tokens: uint32 [n]. segments: uint8 [n] (cache.examples.example.Segment). targets: n rows.
    token_logprobs: float32 [n], the teacher's log-probability of the token itself, NaN where it was not asked.
    """

    tokens: npt.NDArray[np.uint32]
    segments: npt.NDArray[np.uint8]
    targets: SparseTargets
    token_logprobs: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.tokens)

    def part(self, start: int, stop: int) -> "Window":
        """Tokens start:stop as views."""
        return Window(
            self.tokens[start:stop],
            self.segments[start:stop],
            self.targets.rows(start, stop),
            self.token_logprobs[start:stop],
        )


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

    @property
    def window(self) -> Window:
        """All of its tokens, without the texts."""
        return Window(self.tokenized.tokens, self.tokenized.segments, self.targets, self.token_logprobs)
