"""Run a sweep: check every trial, let Ray Tune run them, evaluate what was trained, and compare."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.errors import InputError
from cache.json_documents import write_json
from cache.store.logit_store import LogitStore
from cluster.runtime.outputs import read_json, require_same_job, write_job
from cluster.runtime.ray_session import cluster_gpus, ray_session, require_cpus, require_gpus
from cluster.sweep.comparison import Row, ordered, page, rows_of, table
from cluster.sweep.settings import TRAINING_METRICS, SweepSettings
from cluster.sweep.trial_run import OUTCOME, write_outcome
from cluster.sweep.trials import TRIALS, Trial, TrialMaker, make_trials
from cluster.training.driver import choose_ranks, local_gpus
from cluster.training.preview import preview_training
from student.training.run_files import MODEL, RESULT

SNAPSHOTS = "snapshots.json"
RESULTS = "sweep.json"
PAGE = "sweep.html"
EVALUATION = "evaluation"
# A sweep may grow, and be ordered by something else.
CHANGEABLE = frozenset({"space", "trials", "samples", "concurrent", "evaluate", "metric", "mode"})


@dataclass(frozen=True, slots=True)
class SweepResult:
    """rows: of the table, the best first. failed: reasons by the label of the trial."""

    rows: list[Row]
    text: str
    failed: dict[str, str]
    path: Path
    page: Path


def run_sweep(settings: SweepSettings, root: Path, address: str | None) -> SweepResult:
    """Run what is missing of a sweep, and compare all of it.

    Raises InputError if the job of a trial cannot be, before any starts.
    """
    require_same_job(settings.output, settings, CHANGEABLE)
    snapshots = _snapshots(settings, root)
    maker, trials = make_trials(settings, root, snapshots)
    evaluation = _pinned(_check(settings, root, trials), snapshots)
    write_job(settings.output, settings)
    write_json(settings.output / SNAPSHOTS, snapshots)
    if missing := _missing(settings, trials):
        _run(settings, maker, missing, address)
    found = _found(settings, maker, trials)
    _note_ended_early(found)
    return _compare(settings, found, evaluation)


def preview_sweep(settings: SweepSettings, root: Path) -> str:
    """The trials of a sweep, and what the first of them would do. Raises InputError as `run_sweep` does."""
    require_same_job(settings.output, settings, CHANGEABLE)
    _, trials = make_trials(settings, root, _snapshots(settings, root))
    _check(settings, root, trials)
    if settings.search:
        chosen = f"{settings.samples} trials that {settings.search} chooses"
    else:
        missing = len(_missing(settings, trials))
        chosen = "\n".join([f"{len(trials)} trials, {missing} to run:", *(trial.label for trial in trials)])
    return f"{chosen}\n{preview_training(trials[0].settings)}"


def _snapshots(settings: SweepSettings, root: Path) -> dict[str, int]:
    """The snapshots that the sweep reads: those of its start, or the newest of each store."""
    path = settings.output / SNAPSHOTS
    snapshots: dict[str, int] = dict(read_json(path)) if path.exists() else {}
    _, trials = make_trials(settings, root, snapshots)
    for trial in trials:
        heldout = trial.settings.heldout
        pins = [(item.store, item.snapshot) for item in trial.settings.data.stores]
        pins += [(heldout.store, heldout.snapshot)] if heldout is not None and heldout.store is not None else []
        for store, snapshot in pins:
            if snapshot is not None:
                snapshots.setdefault(store, snapshot)
    evaluation = _evaluation_job(settings, root, trials)
    if evaluation is not None and evaluation.store is not None and evaluation.store not in snapshots:
        newest = LogitStore.open(evaluation.store, evaluation.snapshot).snapshot
        snapshots |= {evaluation.store: newest} if newest is not None else {}
    return snapshots


def _check(settings: SweepSettings, root: Path, trials: Sequence[Trial]) -> Any:
    """The job of the evaluation, or None. Raises InputError for whatever would end the sweep later."""
    _require_comparable(settings, trials)
    if any(trial.settings.data.follow for trial in trials):
        raise InputError("data.follow: the trials of a sweep read one snapshot; leave it out")
    if settings.search or settings.early_stopping:
        from cluster.sweep.tuning import scheduler, search_algorithm

        scheduler(settings, trials[0].settings)
        search_algorithm(settings)
    return _evaluation_job(settings, root, trials)


def _require_comparable(settings: SweepSettings, trials: Sequence[Trial]) -> None:
    """Raise InputError if trials are to be chosen or ordered by losses that say different things."""
    by_loss = settings.metric == "heldout_loss"
    if not (settings.early_stopping or settings.search or by_loss):
        return
    what = "metric = 'heldout_loss'" if by_loss else "search and early_stopping"
    for trial in trials:
        if trial.settings.heldout is None:
            raise InputError(f"{what}: the training has no [heldout]; add it, or order by another metric")
    if len({trial.settings.loss.model_dump_json() for trial in trials}) > 1:
        raise InputError(
            f"{what}: the trials minimise different losses, whose values cannot be compared; give 'evaluate' and order "
            "by a metric of it"
        )


def _missing(settings: SweepSettings, trials: list[Trial]) -> list[Trial]:
    """The trials that have still to run. A search is always asked again: what it chose before is there already."""
    if settings.search:
        return trials
    return [trial for trial in trials if not (_is_complete(trial) or _ended_early(settings, trial))]


def _is_complete(trial: Trial) -> bool:
    path = trial.settings.output / RESULT
    if not path.exists():
        return False
    result = read_json(path)
    steps = trial.settings.with_steps(result["examples"]).run.total_steps
    return bool(result["steps"] >= steps or result.get("stopped_early"))


def _ended_early(settings: SweepSettings, trial: Trial) -> bool:
    return settings.early_stopping is not None and _outcome(trial.settings.output).get("state") == "ended early"


def _outcome(output: Path) -> dict[str, Any]:
    path = output / OUTCOME
    return dict(read_json(path)) if path.exists() else {}


def _run(settings: SweepSettings, maker: TrialMaker, trials: list[Trial], address: str | None) -> None:
    from cluster.sweep.tuning import run_trials

    first = trials[0].settings
    ranks = choose_ranks(first, local_gpus())
    threads = first.run.cpu_threads or 1
    # An embedded Ray has room for a trial, and one CPU for its own work.
    with ray_session(address, ranks * threads + 1):
        gpus = cluster_gpus()
        ranks = choose_ranks(first, min(gpus, ranks) if first.run.ranks is None else gpus)
        require_gpus(ranks)
        if not gpus:
            require_cpus(ranks * threads)
        run_trials(settings, maker, trials, gpus > 0, ranks)


def _found(settings: SweepSettings, maker: TrialMaker, trials: list[Trial]) -> list[Trial]:
    """The trials of this sweep: those listed, or what a search has chosen from this space so far."""
    if not settings.search:
        return trials
    changes = [_outcome(path.parent).get("changes", {}) for path in (settings.output / TRIALS).glob(f"*/{OUTCOME}")]
    return [maker.trial(each) for each in changes if set(each) == set(settings.space)]


def _note_ended_early(trials: Sequence[Trial]) -> None:
    """Ray Tune ends a trial by ending its process, so the trial itself cannot say so."""
    for trial in trials:
        output = trial.settings.output
        if _outcome(output).get("state") == "running":
            state = "finished" if _is_complete(trial) else "ended early"
            write_outcome(output, trial.changes, state)


def _evaluation_job(settings: SweepSettings, root: Path, trials: Sequence[Trial]) -> Any:
    """The job of the evaluation with the models of the trials, or None. Raises InputError if it cannot be."""
    from cluster.evaluation.settings import EvaluateSettings
    from cluster.runtime.job_file import resolve_job
    from cluster.runtime.job_messages import read_toml

    if settings.evaluate is None:
        return None
    models = {trial.name: str(trial.settings.output / MODEL) for trial in trials}
    values = read_toml(settings.evaluate) | {"output": str(settings.output / EVALUATION), "models": models}
    return resolve_job(values, EvaluateSettings, f"job file {settings.evaluate}", root)


def _pinned(evaluation: Any, snapshots: Mapping[str, int]) -> Any:
    """The evaluation of the snapshot that the sweep reads, or None without one."""
    if evaluation is None or evaluation.snapshot is not None:
        return evaluation
    return evaluation.model_copy(update={"snapshot": snapshots.get(evaluation.store)})


def _compare(settings: SweepSettings, trials: Sequence[Trial], evaluation: Any) -> SweepResult:
    metrics: dict[str, dict[str, Any]] = {}
    outcomes = {trial.name: _outcome(trial.settings.output) for trial in trials}
    for trial in trials:
        path = trial.settings.output / RESULT
        result = read_json(path) if path.exists() else {}
        metrics[trial.name] = {
            name: result[key] for name, key in TRAINING_METRICS.items() if result.get(key) is not None
        }
    models = {
        trial.name: str(trial.settings.output / MODEL)
        for trial in trials
        if outcomes[trial.name]["state"] == "finished"
    }
    if evaluation is not None and models:
        from cluster.evaluation.driver import run_evaluation

        for name, values in run_evaluation(evaluation.model_copy(update={"models": models}))["models"].items():
            if name in metrics:
                metrics[name] |= values
    _require_metric(settings.metric, metrics)
    rows = ordered(rows_of(trials, metrics, outcomes), settings.metric, settings.mode)
    reasons = {trial.label: outcomes[trial.name].get("reason") for trial in trials}
    result = {
        "metric": settings.metric,
        "trials": [
            {
                "name": trial.name,
                "changes": dict(trial.changes),
                "state": outcomes[trial.name].get("state", "missing"),
                "reason": outcomes[trial.name].get("reason", ""),
                "output": str(trial.settings.output),
                "metrics": {key: value for key, value in metrics[trial.name].items() if _is_number(value)},
            }
            for trial in trials
        ],
        "rows": [row.as_json() for row in rows],
    }
    write_json(settings.output / RESULTS, result)
    path = settings.output / PAGE
    draft = path.with_name(f".{PAGE}.tmp")
    draft.write_text(page(settings, trials, rows))
    draft.replace(path)
    failed = {label: reason for label, reason in reasons.items() if reason}
    return SweepResult(rows, table(rows, settings.metric), failed, settings.output / RESULTS, path)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _require_metric(metric: str, metrics: Mapping[str, Mapping[str, Any]]) -> None:
    known = sorted({name for values in metrics.values() for name in values})
    if known and metric not in known:
        raise InputError(f"metric {metric!r}: no trial has it; known metrics: {', '.join(known)}")
