"""Record: everything that a store contains about one example. Window: the arrays of a run of its tokens."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cache.examples.example import TokenizedExample
from cache.rows.sparse_targets import SparseTargets


@dataclass(frozen=True, slots=True)
class Window:
    """Consecutive tokens of one example and their targets, for training. No texts.

    tokens: uint32 [n]. segments: uint8 [n] (cache.examples.example.Segment). targets: n rows.
    token_logprobs: float32 [n], the teacher's log-probability of the token itself, NaN if it was not requested.
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

    def copy(self) -> "Window":
        """The same with arrays of its own, so that a longer run of which it is a view is not kept in memory."""
        return Window(self.tokens.copy(), self.segments.copy(), self.targets.copy(), self.token_logprobs.copy())


@dataclass(frozen=True, slots=True)
class Record:
    """One captured example.

    key: identity in the store. For a generated response it is computed from the prompt and the number of the sample, so
    that it is known before the text.
    targets: n rows, one per token; only rows before a response token have entries.
    token_logprobs: float32 [n], the teacher's log-probability of the token itself, NaN if it was not requested.
    """

    key: str
    tokenized: TokenizedExample
    targets: SparseTargets
    token_logprobs: npt.NDArray[np.float32]

    def copy(self) -> "Record":
        """The same with arrays of its own, so that a longer run of which they are views is not kept in memory."""
        window = self.window.copy()
        tokenized = replace(self.tokenized, tokens=window.tokens, segments=window.segments)
        return Record(self.key, tokenized, window.targets, window.token_logprobs)

    @property
    def target_rows(self) -> int:
        """Number of rows with a target."""
        return int(np.count_nonzero(self.targets.counts))

    @property
    def window(self) -> Window:
        """All tokens and targets, without the texts."""
        return Window(self.tokenized.tokens, self.tokenized.segments, self.targets, self.token_logprobs)
