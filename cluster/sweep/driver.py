"""Run a sweep: let Ray Tune run its trials, evaluate what was trained, and compare."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.errors import InputError
from cache.json_documents import write_json
from cluster.runtime.outputs import locked, read_json, write_job
from cluster.runtime.ray_session import cluster_gpus, ray_session, require_cpus, require_gpus
from cluster.sweep.checks import SNAPSHOTS, SweepPlan, is_complete, plan_sweep
from cluster.sweep.comparison import Row, ordered, page, rows_of, table
from cluster.sweep.settings import TRAINING_METRICS, SweepSettings
from cluster.sweep.trial_run import OUTCOME, write_outcome
from cluster.sweep.trials import TRIALS, Trial, identity
from cluster.training.driver import choose_ranks, local_gpus
from student.training.run_files import MODEL, RESULT

if TYPE_CHECKING:  # imports torch
    from cluster.evaluation.settings import EvaluateSettings

RESULTS = "sweep.json"
PAGE = "sweep.html"
# By the changes of a trial: why it was lost.
Lost = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SweepResult:
    """rows: of the table, the best first. failed: label and reason of each trial that failed."""

    rows: list[Row]
    text: str
    failed: list[tuple[str, str]]
    path: Path
    page: Path


def run_sweep(settings: SweepSettings, root: Path, address: str | None) -> SweepResult:
    """Run what is missing of a sweep, and compare all of it.

    Raises InputError if one of its jobs cannot work, before any trial starts; and at the end, with the comparison
    written, if no trial has the metric.
    """
    plan = plan_sweep(settings, root)
    with locked(settings.output):
        write_job(settings.output, settings)
        write_json(settings.output / SNAPSHOTS, plan.snapshots)
        missing = _missing(settings, plan.trials)
        lost = _run(settings, plan, missing, address) if missing else {}
        trials = _found(settings, plan)
        _note_ends(settings, trials, lost)
        return _compare(settings, trials, plan.evaluation)


def preview_sweep(settings: SweepSettings, root: Path) -> str:
    """The trials of a sweep, and what the first of them would do. Raises InputError as `run_sweep` does."""
    plan = plan_sweep(settings, root)
    if settings.search:
        chosen = f"{settings.samples} trials that {settings.search} chooses"
    else:
        missing = len(_missing(settings, plan.trials))
        chosen = "\n".join([f"{len(plan.trials)} trials, {missing} to run:", *(trial.label for trial in plan.trials)])
    return f"{chosen}\n{plan.preview}".rstrip()


def _missing(settings: SweepSettings, trials: list[Trial]) -> list[Trial]:
    """The trials that have still to run. A search is always asked again: what it chose before is there already."""
    if settings.search:
        return trials
    return [trial for trial in trials if not (is_complete(trial) or _ended_early(settings, trial))]


def _ended_early(settings: SweepSettings, trial: Trial) -> bool:
    return settings.early_stopping is not None and _outcome(trial.settings.output).get("state") == "ended early"


def _outcome(output: Path) -> dict[str, Any]:
    path = output / OUTCOME
    return dict(read_json(path)) if path.exists() else {}


def _run(settings: SweepSettings, plan: SweepPlan, missing: list[Trial], address: str | None) -> Lost:
    """Run the missing trials on a Ray cluster. Returns those whose process was lost."""
    from cluster.sweep.tuning import run_trials

    first = missing[0].settings
    ranks = choose_ranks(first, local_gpus())
    threads = first.run.cpu_threads or 1
    # An embedded Ray has room for a trial, and one CPU for its own work.
    with ray_session(address, ranks * threads + 1):
        gpus = cluster_gpus()
        ranks = choose_ranks(first, min(gpus, ranks) if first.run.ranks is None else gpus)
        require_gpus(ranks)
        if not gpus:
            require_cpus(ranks * threads)
        lost = run_trials(settings, plan.maker, missing, gpus > 0, ranks)
    return {identity(changes): reason for changes, reason in lost}


def _found(settings: SweepSettings, plan: SweepPlan) -> list[Trial]:
    """The trials of this sweep: those listed, or what a search has chosen from this space so far."""
    if not settings.search:
        return plan.trials
    changes = [_outcome(path.parent).get("changes", {}) for path in (settings.output / TRIALS).glob(f"*/{OUTCOME}")]
    return [plan.maker.trial(each) for each in changes if set(each) == set(settings.space)]


def _note_ends(settings: SweepSettings, trials: Sequence[Trial], lost: Lost) -> None:
    """Ray Tune ends a trial by ending its process, so neither such a trial nor one that was lost can say so."""
    for trial in trials:
        output = trial.settings.output
        if _outcome(output).get("state") != "running":
            continue
        if reason := lost.get(identity(trial.changes), ""):
            write_outcome(output, trial.changes, "failed", reason)
        elif is_complete(trial):
            write_outcome(output, trial.changes, "finished")
        elif settings.early_stopping is not None:
            write_outcome(output, trial.changes, "ended early")
        else:
            write_outcome(output, trial.changes, "failed", "was stopped; run the sweep again to go on")


def _compare(settings: SweepSettings, trials: Sequence[Trial], evaluation: "EvaluateSettings | None") -> SweepResult:
    outcomes = {trial.name: _outcome(trial.settings.output) for trial in trials}
    metrics = {trial.name: _training_metrics(trial) for trial in trials}
    finished = [trial for trial in trials if outcomes[trial.name].get("state") == "finished"]
    if evaluation is not None and finished:
        from cluster.evaluation.driver import run_evaluation

        models = {trial.name: str(trial.settings.output / MODEL) for trial in finished}
        for name, values in run_evaluation(evaluation.model_copy(update={"models": models}))["models"].items():
            if name in metrics:
                metrics[name] |= values
    rows = ordered(rows_of(trials, metrics, outcomes), settings.metric, settings.mode)
    described = [
        {
            "name": trial.name,
            "changes": dict(trial.changes),
            "state": outcomes[trial.name].get("state", "missing"),
            "reason": outcomes[trial.name].get("reason", ""),
            "output": str(trial.settings.output),
            "metrics": {key: value for key, value in metrics[trial.name].items() if _is_number(value)},
        }
        for trial in trials
    ]
    result = {"metric": settings.metric, "trials": described, "rows": [row.as_json() for row in rows]}
    write_json(settings.output / RESULTS, result)
    path = settings.output / PAGE
    draft = path.with_name(f".{PAGE}.tmp")
    draft.write_text(page(settings, trials, rows))
    draft.replace(path)
    _require_metric(settings, metrics)
    failed = [(trial.label, each["reason"]) for trial, each in zip(trials, described, strict=True) if each["reason"]]
    return SweepResult(rows, table(rows, settings.metric), failed, settings.output / RESULTS, path)


def _training_metrics(trial: Trial) -> dict[str, Any]:
    path = trial.settings.output / RESULT
    result = read_json(path) if path.exists() else {}
    return {name: result[key] for name, key in TRAINING_METRICS.items() if result.get(key) is not None}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _require_metric(settings: SweepSettings, metrics: Mapping[str, Mapping[str, Any]]) -> None:
    known = sorted({name for values in metrics.values() for name in values})
    if known and settings.metric not in known:
        raise InputError(
            f"metric {settings.metric!r}: no trial has it, so {settings.output / RESULTS} is not ordered; run the "
            f"sweep again with one of {', '.join(known)}"
        )
