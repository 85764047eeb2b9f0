"""What is trained: the job of a sweep with changed keys, and the folder in which each trial leaves its training."""

import copy
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
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

    def trial(self, changes: Changes) -> Trial:
        """The trial with these changes. Raises InputError if its job cannot be."""
        values = copy.deepcopy(dict(self.values))
        for key, value in changes.items():
            set_key(values, key, copy.deepcopy(value), f"sweep, key {key!r}")
        name = sha256(dumps(changes, sort_keys=True, default=str).encode()).hexdigest()[:8]
        values["output"] = str(self.output / TRIALS / name)
        where = f"job file {self.path}" + (f" with {label(changes)}" if changes else "")
        settings = resolve_job(values, TrainSettings, where, self.root)
        return Trial(changes, pin_snapshots(settings, _FixedStores(self.snapshots)))


class _FixedStores(OpenStores):
    """Opens a store whose snapshot is left open at the snapshot of the sweep."""

    def __init__(self, snapshots: Mapping[str, int]) -> None:
        super().__init__()
        self._snapshots = snapshots

    def open(self, uri: str, snapshot: int | None) -> Any:
        return super().open(uri, self._snapshots.get(uri) if snapshot is None else snapshot)


def make_trials(sweep: SweepSettings, root: Path, snapshots: Mapping[str, int]) -> tuple[TrialMaker, list[Trial]]:
    """The maker of trials, and all trials. With a search algorithm, one trial for each end of the space.

    Raises InputError if the job of a trial cannot be, or if two trials have the same changes.
    """
    maker = TrialMaker(sweep.train, read_toml(sweep.train), root, sweep.output, snapshots)
    listed = list(_ends(sweep) if sweep.search else _changes(sweep))
    trials = [maker.trial(changes) for changes in listed]
    names = [trial.name for trial in trials]
    if doubled := next((trial for trial in trials if names.count(trial.name) > 1), None):
        raise InputError(f"sweep: two trials have the same changes ({doubled.label}); leave one out")
    return maker, trials


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
    if values.log:
        return math.exp(random.uniform(math.log(values.min), math.log(values.max)))
    return random.uniform(values.min, values.max)


def label(changes: Changes) -> str:
    """Changes in words: "lr = 0.001, seed = 0". A key has its last part alone where that is clear."""
    lasts = [key.rpartition(".")[2] for key in changes]
    names = [last if lasts.count(last) == 1 else key for key, last in zip(changes, lasts, strict=True)]
    return ", ".join(f"{name} = {_short(value)}" for name, value in zip(names, changes.values(), strict=True))


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def groups(trials: Sequence[Changes]) -> dict[str, list[int]]:
    """Numbers of the trials that differ in their seed alone, by their label without it."""
    grouped: dict[str, list[int]] = {}
    for number, changes in enumerate(trials):
        grouped.setdefault(label({key: value for key, value in changes.items() if key != SEED}), []).append(number)
    return grouped
