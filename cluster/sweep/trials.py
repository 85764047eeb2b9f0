"""What is trained: the job of a sweep with changed keys, and the folder in which each trial leaves its training."""

import copy
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from json import dumps
from pathlib import Path
from random import Random
from typing import Any

from cache.errors import InputError
from cluster.runtime.job_file import resolve_job, set_key
from cluster.runtime.job_messages import read_toml
from cluster.sweep.settings import Range, SweepSettings
from cluster.training.snapshot_pinning import pin_snapshots
from student.training.planning.stores import OpenStores
from student.training.settings import TrainSettings

Changes = Mapping[str, Any]
TRIALS = "trials"
# Trials that differ in this key alone are one row of the table.
SEED = "run.seed"


@dataclass(frozen=True, slots=True)
class Trial:
    """A training of a sweep. changes: its keys that differ from the job file. settings: with its own output."""

    changes: Changes
    settings: TrainSettings

    @property
    def name(self) -> str:
        """Of its folder. It depends on the changes alone: a sweep that grows keeps what was trained."""
        return self.settings.output.name

    @property
    def label(self) -> str:
        """The changes in words."""
        return label(self.changes)


@dataclass(frozen=True, slots=True)
class TrialMaker:
    """Makes trials, in the process of the sweep or in that of a trial.

    values: content of the job file of the training, at `path`. root: of relative paths. snapshots: of stores whose
    snapshot the job leaves open, so that all trials read the same examples.
    """

    path: Path
    values: Mapping[str, Any]
    root: Path
    output: Path
    snapshots: Mapping[str, int]

    def trial(self, changes: Changes, stores: OpenStores | None = None) -> Trial:
        """The trial with these changes. stores: that are open already. Raises InputError if its job cannot be."""
        values = copy.deepcopy(dict(self.values))
        for key, value in changes.items():
            set_key(values, key, copy.deepcopy(value), f"sweep, key {key!r}")
        name = sha256(identity(changes).encode()).hexdigest()[:8]
        values["output"] = str(self.output / TRIALS / name)
        if values.get("mirror"):
            values["mirror"] = f"{str(values['mirror']).rstrip('/')}/{name}"
        where = f"job file {self.path}" + (f" with {label(changes)}" if changes else "")
        settings = resolve_job(values, TrainSettings, where, self.root)
        return Trial(changes, pin_snapshots(settings, stores or FixedStores(self.snapshots)))


class FixedStores(OpenStores):
    """Opens a store whose snapshot is left open at the snapshot of the sweep."""

    def __init__(self, snapshots: Mapping[str, int]) -> None:
        super().__init__()
        self._snapshots = snapshots

    def open(self, uri: str, snapshot: int | None) -> Any:
        return super().open(uri, self._snapshots.get(uri) if snapshot is None else snapshot)


def make_trials(sweep: SweepSettings, root: Path, snapshots: Mapping[str, int]) -> tuple[TrialMaker, list[Trial]]:
    """The maker of trials, and all trials. With a search algorithm, one trial for each end of the space.

    Of equal draws from ranges, one is left. Raises InputError if the job of a trial cannot be, or if two trials that a
    user lists have the same changes.
    """
    maker = TrialMaker(sweep.train, read_toml(sweep.train), root, sweep.output, snapshots)
    stores = FixedStores(snapshots)
    trials: dict[str, Trial] = {}
    for changes in _ends(sweep) if sweep.search else _changes(sweep):
        trial = maker.trial(changes, stores)
        if trial.name in trials and not any(isinstance(values, Range) for values in sweep.space.values()):
            raise InputError(f"sweep: two trials have the same changes ({trial.label}); leave one out")
        trials.setdefault(trial.name, trial)
    return maker, list(trials.values())


def _changes(sweep: SweepSettings) -> Iterator[dict[str, Any]]:
    """The changes of all trials, in order: those listed; or the grid, for each draw of the ranges."""
    if sweep.trials:
        yield from map(dict, sweep.trials)
        return
    random = Random(sweep.seed)
    lists = {key: values for key, values in sweep.space.items() if not isinstance(values, Range)}
    for _ in range(sweep.samples):
        drawn = {key: _draw(values, random) for key, values in sweep.space.items() if isinstance(values, Range)}
        for chosen in itertools.product(*lists.values()):
            together = drawn | dict(zip(lists, chosen, strict=True))
            yield {key: together[key] for key in sweep.space}


def _ends(sweep: SweepSettings) -> Iterator[dict[str, Any]]:
    """The trials at both ends of every range and list: if their jobs can be, others can."""
    first, last = ({key: _end(values, end) for key, values in sweep.space.items()} for end in (0, -1))
    yield first
    if last != first:
        yield last


def _end(values: tuple[Any, ...] | Range, end: int) -> Any:
    if not isinstance(values, Range):
        return values[end]
    value = (values.min, values.max)[end]
    return int(value) if values.integer else value


def _draw(values: Range, random: Random) -> float | int:
    if values.integer:
        return random.randint(int(values.min), int(values.max))
    low, high = (math.log(values.min), math.log(values.max)) if values.log else (values.min, values.max)
    drawn = random.uniform(low, high)
    # Few digits, so that tables and names show the value itself.
    return min(max(float(f"{math.exp(drawn) if values.log else drawn:.4g}"), values.min), values.max)


def label(changes: Changes) -> str:
    """Changes in words: "lr = 0.001, seed = 0". A key has its last part alone where that is clear."""
    lasts = [key.rpartition(".")[2] for key in changes]
    names = [last if lasts.count(last) == 1 else key for key, last in zip(changes, lasts, strict=True)]
    return ", ".join(f"{name} = {_short(value)}" for name, value in zip(names, changes.values(), strict=True))


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def without_seed(changes: Changes) -> dict[str, Any]:
    """The changes but for the seed."""
    return {key: value for key, value in changes.items() if key != SEED}


def identity(changes: Changes) -> str:
    """A text that only equal changes have."""
    return dumps(changes, sort_keys=True, default=str)
