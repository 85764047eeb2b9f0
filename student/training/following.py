"""A store that grows while a student learns from it: from which step on the run reads which snapshot.

    OUTPUT/followed.json    store, steps between looks, the stretches so far, and up to which step they are decided

Rank 0 looks for a newer snapshot at every multiple of data.follow, and writes what it decided before that step. A run
that is continued, or repeated with this file, therefore reads the same examples at each step.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from cache.errors import LogitbankError
from cache.json_documents import write_json
from student.data.batches import Batches
from student.training.planning.stores import newest_snapshot
from student.training.run_files import FOLLOWED, read_followed
from student.training.settings import TrainSettings

# Opens the batches of a snapshot.
Reopen = Callable[[int], Batches]


@dataclass(frozen=True, slots=True)
class Stretch:
    """From `step` on, the run reads this snapshot with so many examples, in the order of a run that began with it."""

    step: int
    snapshot: int
    examples: int


class Following:
    """The batches of the present stretch. Call `batches_from` on every rank at the same steps.

    first: batches of the snapshot with which the run began. device: of this rank, for messages between ranks.
    """

    def __init__(self, settings: TrainSettings, first: Batches, reopen: Reopen, device: torch.device) -> None:
        data = settings.data
        if data.follow is None or data.store is None or data.snapshot is None:
            raise RuntimeError("only a run with a pinned store follows it")
        self._every, self._uri, self._total = data.follow, data.store, settings.run.total_steps
        self._output, self._reopen, self._device = settings.output, reopen, device
        self._batches, self._snapshot = first, data.snapshot
        self._start = Stretch(0, data.snapshot, len(first.sizes))

    def batches_from(self, step: int) -> tuple[Batches, int]:
        """The batches for this step, and the step before which they have to be asked for again.

        Raises InputError if the snapshot has an example that the student cannot read.
        """
        decided: list[Any] = [None]
        if dist.get_rank() == 0:
            try:
                decided = [self._decide(step)]
            except Exception as error:  # the other ranks wait for an answer
                decided = [error if isinstance(error, LogitbankError) else RuntimeError(f"rank 0: {error!r}")]
        dist.broadcast_object_list(decided, src=0, device=self._device)
        if isinstance(decided[0], Exception):
            raise decided[0]
        if decided[0] != self._snapshot:
            self._batches, self._snapshot = self._reopen(decided[0]), decided[0]
            self._describe(step)
        return self._batches, min(self._total, (step // self._every + 1) * self._every)

    @property
    def snapshot(self) -> int:
        """The one that is read now."""
        return self._snapshot

    def _decide(self, step: int) -> int:
        """The snapshot for a step. A newer one is looked for at a multiple of data.follow that is not decided yet."""
        stretches, decided = self._read()
        if read_followed(self._output) is None:
            self._write(stretches, decided)
        if step % self._every == 0 and step > decided:
            newest = newest_snapshot(self._uri)
            if newest is not None and newest > stretches[-1].snapshot:
                stretches.append(Stretch(step, newest, 0))
            self._write(stretches, step)
        return max((each for each in stretches if each.step <= step), key=lambda each: each.step).snapshot

    def _describe(self, step: int) -> None:
        """Note how many examples a new stretch has, once they are open."""
        if dist.get_rank() == 0:
            stretches, decided = self._read()
            count = len(self._batches.sizes)
            known = [
                Stretch(each.step, each.snapshot, count) if each.snapshot == self._snapshot else each
                for each in stretches
            ]
            self._write(known, decided)

    def _read(self) -> tuple[list[Stretch], int]:
        document = read_followed(self._output)
        if document is None:
            return [self._start], 0
        return [Stretch(**each) for each in document["stretches"]], document["decided"]

    def _write(self, stretches: list[Stretch], decided: int) -> None:
        document = {"store": self._uri, "follow": self._every, "decided": decided}
        write_json(self._output / FOLLOWED, document | {"stretches": [asdict(each) for each in stretches]})


def followed(output: Path) -> list[dict[str, int]]:
    """The stretches of a run; empty if it followed no store."""
    document = read_followed(output)
    return [] if document is None else list(document["stretches"])
