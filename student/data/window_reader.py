"""Reads the examples of many steps together, because the order of examples makes them neighbours in the store.

A stretch is the steps of one window of the order (cache.examples.example_order). While the steps of a stretch are used,
the examples of the next stretch are read, a part at each step. So the examples in memory are about those of one window.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from cache.store.reading.blocks import token_blocks
from student.data.batches import Batches


class _Stretch:
    """Steps whose examples are read together.

    requests: number of them. pending: those that no thread has begun. reading: number of those that threads are reading
    now. prepared: number of steps that are. error: of a request.
    """

    def __init__(self, steps: range, requests: Sequence[list[int]]) -> None:
        self.steps = steps
        self.requests = len(requests)
        self.pending = deque(requests)
        self.reading = self.prepared = 0
        self.error: BaseException | None = None


class WindowReader:
    """Reads the examples of a rank before their steps. Threads that call `prepare` share the work.

    examples_of: the examples of a step that this rank uses.
    """

    def __init__(
        self,
        batches: Batches,
        examples_of: Callable[[int], list[int]],
        start_of: Callable[[int], int],
        first: int,
        last: int,
    ) -> None:
        """start_of: where a step begins in the stream. first, last: steps of the run, without `last`."""
        self._batches, self._examples_of, self._start_of, self._last = batches, examples_of, start_of, last
        self._change = threading.Condition()
        # Those that have steps to prepare, and the one after them.
        self._stretches = deque([self._stretch_from(first)])

    def prepare(self, step: int) -> None:
        """Read all examples of a step, if that was not done, and a part of those of the next stretch.

        Each step is prepared once, in any order of neighbouring steps. Raises what reading raises.
        """
        with self._change:
            own, following = self._stretches_of(step)
            # As large a share of the next stretch as was used of this one.
            left = following.requests - following.requests * own.prepared // len(own.steps)
        while self._read_request(own):
            pass
        with self._change:
            self._change.wait_for(lambda: not own.reading)
        if own.error is not None:
            raise own.error
        while self._read_request(following, left):
            pass

    def _stretches_of(self, step: int) -> tuple[_Stretch, _Stretch]:
        """The stretch of a step, and the one after it. Forgets those whose steps are all prepared."""
        while self._stretches[-1].steps.start <= step:
            self._stretches.append(self._stretch_from(self._stretches[-1].steps.stop))
        number = next(i for i, stretch in enumerate(self._stretches) if step in stretch.steps)
        own, following = self._stretches[number], self._stretches[number + 1]
        own.prepared += 1
        while self._stretches[0].prepared == len(self._stretches[0].steps) > 0:
            self._stretches.popleft()
        return own, following

    def _read_request(self, stretch: _Stretch, left: int = 0) -> bool:
        """Read the next request of a stretch. False if no more than `left` are pending."""
        with self._change:
            if len(stretch.pending) <= left:
                return False
            examples = stretch.pending.popleft()
            stretch.reading += 1
        try:
            self._batches.hold(examples)
        except BaseException as error:
            stretch.error = error
            raise
        finally:
            with self._change:
                stretch.reading -= 1
                self._change.notify_all()
        return True

    def _stretch_from(self, first: int) -> _Stretch:
        """The stretch that begins with a step. It has nothing to read if its examples are not read together."""
        end = self._batches.window_end(self._start_of(first))
        stop = first + 1
        while end is not None and stop < self._last and self._start_of(stop) < end:
            stop += 1
        steps = range(first, min(stop, self._last))
        if len(steps) < 2:
            return _Stretch(steps, [])
        examples = sorted(example for step in steps for example in self._examples_of(step))
        # A request is in memory twice for a moment. Threads take requests in turn.
        blocks = token_blocks(np.asarray(self._batches.sizes)[examples])
        requests = [examples[block.start : block.stop] for block in blocks]
        return _Stretch(steps, requests)
