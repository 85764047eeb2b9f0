"""PlannedInput: what all windows of an examples file together are."""

from dataclasses import fields

import numpy as np
import numpy.typing as npt

from cache.errors import InputError
from cache.examples.files.jsonl import BadExample, bad_line, no_examples
from cache.store.segments.keys import keys_of_hex
from cluster.capture.input.input_summary import InputSummary, shorten_notes
from cluster.capture.input.job import CaptureJob
from cluster.capture.input.key_set import KeySet
from cluster.capture.input.window_planning import PlannedWindow

NOTHING = InputSummary(*[0] * len(fields(InputSummary)))


class PlannedInput:
    """Counts of the windows so far, and the keys of the job.

    keys, rejected_keys: of its responses, and of its rejected examples.
    summary: what becomes of the lines. planned, missing, truncated: responses of the job, those that the store lacks,
    and those that lost tokens. rejected: number of rejected examples. examples: lines that are examples. forgotten:
    responses that the store must not keep. bytes_read: of the input. notes: lines for a person.
    """

    def __init__(self, job: CaptureJob) -> None:
        self._job = job
        self.keys = KeySet()
        self.rejected_keys = KeySet()
        self._present = 0
        self._first_bad: BadExample | None = None
        self.summary = NOTHING
        self.planned = self.missing = self.truncated = self.examples = self.forgotten = self.bytes_read = 0
        self.notes: list[str] = []

    @property
    def rejected(self) -> int:
        """Number of rejected examples."""
        return len(self.rejected_keys)

    @property
    def others(self) -> int:
        """Records of the store that do not belong to the windows so far."""
        return sum(map(len, self._job.committed)) - self._present

    def expected(self, total_bytes: int | None) -> int:
        """Responses and rejected examples of the whole job, from the bytes that are read of so many; None: all are.

        A job that has reached its limit gets no more of them.
        """
        count = self.planned + self.rejected
        if total_bytes is None or not self.bytes_read or self.summary.beyond_limit:
            return count
        return round(count * total_bytes / self.bytes_read)

    def add(self, window: PlannedWindow) -> npt.NDArray[np.bool_]:
        """Count a window. Returns which of its responses earlier windows do not have, bool [n].

        An example of which earlier windows have every response is a duplicate.
        """
        new = self.keys.add(window.keys)
        again = np.unique(window.example[~new & window.counted])
        again = again[~np.isin(again, window.example[new])]
        summary = window.input
        names = [field.name for field in fields(InputSummary)]
        rejected = keys_of_hex(window.rejected)
        twice = int((~self.rejected_keys.add(rejected)).sum())
        moved = {"captured": -len(again), "rejected": -twice, "duplicates": len(again) + twice}
        self.summary = InputSummary(
            *(getattr(self.summary, name) + getattr(summary, name) + moved.get(name, 0) for name in names)
        )
        self.planned += int(new.sum())
        self.missing += int((new & (window.unit >= 0)).sum())
        self.truncated += int((new & window.truncated).sum())
        self._present += int((new & window.committed).sum())
        self.examples += window.examples
        self.forgotten += window.forgotten
        self.bytes_read = window.bytes_read
        self._first_bad = self._first_bad or window.first_bad
        self.notes = shorten_notes([*self.notes, *window.notes])
        return new

    def require_examples(self) -> None:
        """Raise InputError if the whole input has nothing to capture."""
        settings = self._job.settings
        if not self.examples:
            raise bad_line(settings.examples, self._first_bad) if self._first_bad else no_examples(settings.examples)
        if not self.planned and not self.rejected:
            requested = "scored responses only" if settings.score else "nothing, since score = false"
            raise InputError(
                f"examples file {settings.examples}: no example has a response, and the job requests {requested}; add "
                "a [generation] table to let the teacher generate responses"
            )
