"""Which examples of the endless stream each step has."""

import threading
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cache.errors import InputError
from student.data.batches import Batches
from student.data.settings import StepSize


class StepStart(NamedTuple):
    """Where a step begins. position: in the stream of examples. tokens: of all examples before it."""

    position: int = 0
    tokens: int = 0


START = StepStart()


def require_steps_of_whole_examples(sizes: npt.NDArray[np.int64], size: StepSize) -> None:
    """Raise InputError if an example is longer than a step. sizes: tokens of each example."""
    longest = int(sizes.max(initial=0))
    if size.tokens is not None and longest > size.tokens:
        raise InputError(
            f"run.batch_tokens = {size.tokens:,}: the longest example has {longest:,} tokens; raise it, or leave out "
            "longer examples with data.max_tokens"
        )


class StepStream:
    """The steps of a run, from one of them on. Its threads may ask for them in any order.

    Where a step has a number of tokens T, step k ends with the example whose tokens, with those of all examples before
    it in the stream, are (k + 1) T or more. A pure function of the sizes, the seed and
    where the first step begins, so all ranks agree without communication.
    """

    def __init__(self, batches: Batches, size: StepSize, seed: int, first: int = 0, start: StepStart = START) -> None:
        """first, start: number of the first step, and where it begins; by default the start of a run."""
        self._batches, self._size, self._seed, self._first = batches, size, seed, first
        self._mean = max(1.0, float(batches.sizes.mean()))
        self._lock = threading.Lock()
        self._starts = [start]  # of the steps from `first` on, as far as they were asked for

    def start(self, step: int) -> int:
        """Position of the first example of a step."""
        if self._size.examples is not None:
            return step * self._size.examples
        with self._lock:
            while len(self._starts) <= step - self._first:
                self._starts.append(self._end_of(self._first + len(self._starts) - 1, self._starts[-1]))
            return self._starts[step - self._first].position

    def examples(self, step: int) -> npt.NDArray[np.int64]:
        """The examples of a step, over all ranks, int64."""
        start = self.start(step)
        return self._batches.order(start, self.start(step + 1) - start, self._seed)

    def _end_of(self, step: int, start: StepStart) -> StepStart:
        """Where the step after this one begins."""
        assert self._size.tokens is not None
        # At least one: a store that grows may get an example that is longer than a step, after a run has begun.
        wanted = max(1, (step + 1) * self._size.tokens - start.tokens)
        sizes = self._batches.sizes
        count, tokens = 0, 0
        while tokens < wanted:
            # As many as are probably missing, and some more.
            chunk = 16 + int(1.1 * (wanted - tokens) / self._mean)
            reached = tokens + np.cumsum(sizes[self._batches.order(start.position + count, chunk, self._seed)])
            used = min(int(np.searchsorted(reached, wanted)) + 1, chunk)
            count, tokens = count + used, int(reached[used - 1])
        return StepStart(start.position + count, start.tokens + tokens)
