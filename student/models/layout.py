"""How examples lie in the rows of a model's inputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from cache.rows.record import Window

# The token id of padding. Any id will do, since no real token attends to it.
PADDING = 0


class LaidOut(NamedTuple):
    """inputs: arguments of a model, int64 [B, L]. rows: of each example, positions in its flattened output, int64."""

    inputs: dict[str, npt.NDArray[np.int64]]
    rows: list[npt.NDArray[np.int64]]


class Layout(Protocol):
    """How examples lie in the rows of a model's inputs.

    learns_prompts: whether the model predicts the tokens of prompts.
    """

    @property
    def learns_prompts(self) -> bool: ...

    def place(self, windows: Sequence[Window], rows: Sequence[npt.NDArray[np.int64]]) -> LaidOut:
        """Put the examples side by side. rows: of each example, the target rows with a loss, int64."""
        ...


def side_by_side(tokens: Sequence[npt.NDArray[np.uint32]], length: int) -> npt.NDArray[np.int64]:
    """The sequences as rows of `length` tokens, padded on the right."""
    rows = np.full((len(tokens), length), PADDING, np.int64)
    for row, sequence in zip(rows, tokens, strict=True):
        row[: len(sequence)] = sequence
    return rows


@dataclass(frozen=True, slots=True)
class PaddedLayout:
    """One example a row, padded on the right: under a causal mask, no real token sees the padding."""

    learns_prompts: bool = True

    def place(self, windows: Sequence[Window], rows: Sequence[npt.NDArray[np.int64]]) -> LaidOut:
        length = max(map(len, windows))
        input_ids = side_by_side([window.tokens for window in windows], length)
        return LaidOut({"input_ids": input_ids}, [b * length + own for b, own in enumerate(rows)])


PADDED = PaddedLayout()
