"""How the examples of a micro-batch are arranged in the inputs of a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from cache.rows.record import Window

# The token id of padding. Any id will do, since no real token attends to it.
PADDING = 0


class ArrangedExamples(NamedTuple):
    """Examples as the inputs of a model.

    inputs: arguments of the model, int64 [B, L].
    rows: for each example, the positions of its target rows in the flattened output [B * L], int64.
    """

    inputs: dict[str, npt.NDArray[np.int64]]
    rows: list[npt.NDArray[np.int64]]


class Layout(Protocol):
    """How examples are arranged in the inputs of a model.

    learns_prompts: whether the model predicts the tokens of prompts.
    """

    @property
    def learns_prompts(self) -> bool: ...

    def arrange(
        self, windows: Sequence[Window], rows: Sequence[npt.NDArray[np.int64]], row_of: Sequence[int] | None = None
    ) -> ArrangedExamples:
        """Arrange the examples in one batch. rows: for each example, the target rows that have a loss, int64.

        row_of: for each example, the row of the batch that is planned for it; a layout of one example a row needs none.
        """
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

    def arrange(
        self, windows: Sequence[Window], rows: Sequence[npt.NDArray[np.int64]], row_of: Sequence[int] | None = None
    ) -> ArrangedExamples:
        length = max(map(len, windows))
        input_ids = side_by_side([window.tokens for window in windows], length)
        return ArrangedExamples({"input_ids": input_ids}, [b * length + row for b, row in enumerate(rows)])


PADDED = PaddedLayout()
