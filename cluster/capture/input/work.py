"""Work: a unit, or a part of one, that a worker captures."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.store.segments.keys import Array


@dataclass(frozen=True, eq=False)
class Work:
    """Responses that are captured and committed together.

    units: the units of a window, or Ray's reference to them; number: which of them it is. places: int32 [n], of the
    responses in the unit; examples: int64 [n], a number for each, equal for responses to one example. keys: void16 [n].
    name: for messages. window: a name for its window, the same for every driver. deaths: how often it has lost its
    worker.
    """

    units: Any
    number: int
    places: npt.NDArray[np.int32]
    examples: npt.NDArray[np.int64]
    keys: Array
    name: str
    window: str = ""
    deaths: int = 0

    def __len__(self) -> int:
        return len(self.places)

    def call(self, worker: Any) -> Any:
        """Let a worker capture it. Returns Ray's reference to the outcome."""
        return worker.capture.remote(self.units, self.number, self.places)

    def died(self) -> "Work":
        """The same after one more death."""
        return replace(self, deaths=self.deaths + 1)

    def halves(self) -> "tuple[Work, ...]":
        """Two parts with about half of the examples each; nothing if it has only one example."""
        different = np.unique(self.examples)
        if len(different) < 2:
            return ()
        is_second = self.examples >= different[len(different) // 2]
        return tuple(
            replace(self, places=self.places[part], examples=self.examples[part], keys=self.keys[part])
            for part in (~is_second, is_second)
        )
