"""What a sweep will do, with everything checked that would end it, or one of its trials, later."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cache.errors import InputError, LogitbankError
from cache.store.logit_store import LogitStore
from cluster.runtime.job_file import resolve_job
from cluster.runtime.job_messages import read_toml
from cluster.runtime.outputs import read_json, require_same_job
from cluster.sweep.settings import SweepSettings
from cluster.sweep.trials import Trial, TrialMaker, make_trials
from cluster.training.driver import CHANGEABLE as CHANGEABLE_TRAINING
from cluster.training.preview import preview_training
from student.training.planning.plan import job_digest
from student.training.run_files import MODEL, RESULT

if TYPE_CHECKING:  # imports torch
    from cluster.evaluation.settings import EvaluateSettings

SNAPSHOTS = "snapshots.json"
EVALUATION = "evaluation"
# A sweep may grow, and be ordered by something else.
CHANGEABLE = frozenset({"space", "trials", "samples", "concurrent", "evaluate", "metric", "mode"})


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """trials: all that are listed, or with a search algorithm those at the ends of the space. snapshots: by store."""

    maker: TrialMaker
    trials: list[Trial]
    evaluation: "EvaluateSettings | None"
    snapshots: dict[str, int]
    preview: str


def plan_sweep(settings: SweepSettings, root: Path) -> SweepPlan:
    """Plan a sweep, and each different training of it. Writes nothing.

    Raises InputError for whatever would end it later: settings, data, models, and work of another job in its folder.
    """
    require_same_job(settings.output, settings, CHANGEABLE)
    path = settings.output / SNAPSHOTS
    snapshots: dict[str, int] = dict(read_json(path)) if path.exists() else {}
    maker, trials = make_trials(settings, root, snapshots)
    if any(trial.settings.data.follow for trial in trials):
        raise InputError("data.follow: the trials of a sweep read one snapshot; leave it out")
    _require_same_resources(trials)
    _require_comparable(settings, trials)
    if settings.search or settings.early_stopping:
        from cluster.sweep.tuning import scheduler, search_algorithm

        scheduler(settings, trials[0].settings)
        search_algorithm(settings)
    snapshots |= _pins(trials, snapshots)
    evaluation = _evaluation_job(settings, root, trials, snapshots)
    for trial in trials:
        require_same_job(trial.settings.output, trial.settings, CHANGEABLE_TRAINING)
    return SweepPlan(replace(maker, snapshots=snapshots), trials, evaluation, snapshots, _plan_trainings(trials))


def is_complete(trial: Trial) -> bool:
    """Whether a trial has done all of its steps, or has stopped early by itself."""
    path = trial.settings.output / RESULT
    if not path.exists():
        return False
    result = read_json(path)
    steps = trial.settings.with_steps(result["examples"], result.get("example_tokens", 0)).run.total_steps
    return bool(result["steps"] >= steps or result.get("stopped_early"))


def _require_same_resources(trials: Sequence[Trial]) -> None:
    """Raise InputError if trials need different resources: Ray Tune gives each the same, and one could wait forever."""
    for name in ("ranks", "sequence_parallel", "cpu_threads"):
        if len({getattr(trial.settings.run, name) for trial in trials}) > 1:
            raise InputError(f"run.{name}: all trials of a sweep take the same; sweep each value by itself")


def _require_comparable(settings: SweepSettings, trials: Sequence[Trial]) -> None:
    """Raise InputError if trials are to be chosen or ordered by losses that say different things."""
    by_loss = settings.metric == "heldout_loss"
    if not (settings.early_stopping or settings.search or by_loss):
        return
    what = "metric = 'heldout_loss'" if by_loss else "search and early_stopping"
    instead = "give 'evaluate' and order by a metric of it"
    said: list[dict[str, str]] = []
    for trial in trials:
        job = trial.settings
        if job.heldout is None:
            raise InputError(f"{what}: the training has no [heldout]; add it, or order by another metric")
        examples = job.heldout.as_data(job.data).model_dump_json() + str(job.heldout.limit)
        tokenizer = job.tokenizer.model_dump_json() + (job.model.pretrained or "" if job.data.align != "same" else "")
        said.append({"losses": job.loss.model_dump_json(), "held-out examples": examples, "tokenizers": tokenizer})
    for name in said[0]:
        if len({each[name] for each in said}) > 1:
            raise InputError(f"{what}: the trials have different {name}, so their losses cannot be compared; {instead}")


def _pins(trials: Sequence[Trial], snapshots: Mapping[str, int]) -> dict[str, int]:
    """The snapshots that the trials read, of stores of which the sweep has none yet."""
    pins: dict[str, int] = {}
    for trial in trials:
        heldout = trial.settings.heldout
        found = [(item.store, item.snapshot) for item in trial.settings.data.stores]
        found += [(heldout.store, heldout.snapshot)] if heldout is not None and heldout.store is not None else []
        for store, snapshot in found:
            if snapshot is not None and store not in snapshots:
                pins.setdefault(store, snapshot)
    return pins


def _evaluation_job(
    settings: SweepSettings, root: Path, trials: Sequence[Trial], snapshots: dict[str, int]
) -> "EvaluateSettings | None":
    """The evaluation of the trials at the snapshot of the sweep, or None. Notes that snapshot.

    Raises InputError if it cannot be, or if the sweep's folder has results of another one.
    """
    from cluster.evaluation.driver import CHANGEABLE as CHANGEABLE_EVALUATION
    from cluster.evaluation.settings import EvaluateSettings

    if settings.evaluate is None:
        return None
    models = {trial.name: str(trial.settings.output / MODEL) for trial in trials}
    values = read_toml(settings.evaluate) | {"output": str(settings.output / EVALUATION), "models": models}
    job = resolve_job(values, EvaluateSettings, f"job file {settings.evaluate}", root)
    if job.store is not None and job.snapshot is None:
        if job.store not in snapshots:
            snapshots |= {job.store: newest} if (newest := LogitStore.open(job.store).snapshot) is not None else {}
        job = job.model_copy(update={"snapshot": snapshots.get(job.store)})
    require_same_job(job.output, job, CHANGEABLE_EVALUATION)
    return job


def _plan_trainings(trials: Sequence[Trial]) -> str:
    """Plan each training that differs in what a plan checks. Returns what the first would do."""
    previews: dict[tuple[object, ...], str] = {}
    for trial in trials:
        run, optimizer = trial.settings.run, trial.settings.optimizer
        plan = (job_digest(trial.settings), run.batch_tokens, run.ranks, optimizer.name)
        if plan in previews or is_complete(trial):
            continue
        try:
            previews[plan] = preview_training(trial.settings)
        except LogitbankError as error:
            raise InputError(f"sweep: trial with {trial.label or 'no changes'}: {error}") from error
    return next(iter(previews.values()), "")
