"""Examples that can be made into micro-batches."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from cache.errors import InputError
from student.data.collate import collate
from student.data.example_weights import ExampleWeights
from student.data.held_windows import HeldWindows
from student.data.sources import Examples
from student.losses.batch import Batch
from student.losses.weighted_objectives import WeightedObjectives
from student.models.rows.layout import Layout


def require_learnable_prompts(objectives: WeightedObjectives, layout: Layout) -> None:
    """Raise InputError if a term has a weight for prompts and the model does not predict their tokens."""
    if objectives.weighs_prompts and not layout.learns_prompts:
        raise InputError("loss.segments.prompt: an encoder-decoder reads prompts and cannot learn them; leave it out")


class Batches(Protocol):
    """Examples that can be made into micro-batches.

    sizes: int64 [examples]. Examples of similar size are put into the same micro-batch.
    """

    sizes: npt.NDArray[np.int64]
    objectives: WeightedObjectives

    def batch(self, examples: Sequence[int], row_of: Sequence[int] | None = None) -> Batch:
        """The micro-batch of these examples. Without examples, one whose loss and gradients are 0.

        A rank with fewer examples than others needs such a micro-batch: all ranks of ZeRO-3 compute equally often.
        row_of: the row that is planned for each example, if rows are packed; None to let the layout choose.
        """
        ...

    def order(self, start: int, count: int, seed: int) -> npt.NDArray[np.int64]:
        """Examples at positions start..start + count of the endless stream, int64 [count]."""
        ...

    def window_end(self, position: int) -> int | None:
        """First position after those that are best read together with this one. None if that is no faster."""
        ...

    def hold(self, examples: Sequence[int]) -> None:
        """Read the examples together, and keep each until a batch has it."""
        ...


class LanguageBatches:
    """The examples of a language model. weight_key: key of the metadata with the weight of each example.

    Raises InputError if a term has a weight for prompts that the model cannot learn, or is for metadata that no example
    has.
    """

    def __init__(
        self, source: Examples, objectives: WeightedObjectives, layout: Layout, weight_key: str | None = None
    ) -> None:
        self.source, self.objectives, self._layout = source, objectives, layout
        self._weights = ExampleWeights(source, objectives.terms, weight_key)
        self.sizes = source.tokens
        self.held = HeldWindows(source)
        require_learnable_prompts(objectives, layout)

    def batch(self, examples: Sequence[int], row_of: Sequence[int] | None = None) -> Batch:
        if not len(examples):
            shortest = int(np.argmin(self.sizes))
            nothing = np.zeros((1, 1), np.float32)
            return collate(self.source.read([shortest]), self.objectives, self._layout, nothing)
        weights = self._weights.of(examples)
        return collate(self.held.take(examples), self.objectives, self._layout, weights, row_of)

    def order(self, start: int, count: int, seed: int) -> npt.NDArray[np.int64]:
        return self.source.order(start, count, seed)

    def window_end(self, position: int) -> int | None:
        return self.source.window_end(position)

    def hold(self, examples: Sequence[int]) -> None:
        self.held.hold(examples)
