"""The content of results.json: what several jobs measured, collected from the files that they wrote."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.errors import InputError
from cache.store.logit_store import LogitStore
from cache.store.store_info import StoreInfo
from cluster.capture.run_log import capture_log_path
from cluster.evaluation.model_digest import model_digest
from cluster.report.groups import Metrics, group_models, group_results, table_values
from cluster.report.metrics_table import metrics_table
from cluster.report.settings import ReportSettings
from cluster.runtime.hardware import hardware
from cluster.runtime.outputs import JOB, read_json


@dataclass(frozen=True, slots=True)
class Sources:
    """What the jobs of a report wrote. trainings, captures: by name. stage_seconds: wall time of each stage.

    evaluation: the one whose answers are shown. tables: by title the metrics of each evaluation, as columns of models
    and groups; "" is the title of `evaluation`.
    """

    store: LogitStore
    evaluation: dict[str, Any]
    tables: dict[str, dict[str, Metrics]]
    trainings: dict[str, Any]
    captures: dict[str, Any]
    stage_seconds: dict[str, float]


def read_sources(settings: ReportSettings) -> Sources:
    """Read all files that a report needs. Raises InputError naming a file that is missing or not valid."""
    folders = {"": settings.evaluation, **settings.evaluations}
    evaluations = {title: _read_evaluation(folder) for title, folder in folders.items()}
    _require_known_models(settings, evaluations)
    trainings = {name: read_json(path / "training.json") for name, path in settings.trainings.items()}
    stores = {"capture": settings.store, "heldout": settings.heldout_store, **settings.captures}
    captures = {name: capture_totals(store) for name, store in stores.items()}
    return Sources(
        store=LogitStore.open(str(settings.store)),
        evaluation=evaluations[""],
        tables={title: group_models(each["models"], settings.groups) for title, each in evaluations.items()},
        trainings=trainings,
        captures=captures,
        stage_seconds=_stage_seconds(settings, trainings, captures, evaluations),
    )


def _read_evaluation(folder: Path) -> dict[str, Any]:
    """Read evaluation.json. Raises InputError if a model has changed since, for example because it was trained on."""
    evaluation: dict[str, Any] = read_json(folder / "evaluation.json")
    models = read_json(folder / JOB)["models"]
    for name, evaluated in evaluation.get("digests", {}).items():
        if evaluated and model_digest(models[name]) != evaluated:
            raise InputError(
                f"{folder}: model {name!r} ({models[name]}) has changed since its evaluation; "
                "run 'logitbank evaluate' again"
            )
    return evaluation


def _require_known_models(settings: ReportSettings, evaluations: Mapping[str, Any]) -> None:
    """Raise InputError if no evaluation has any model of a group."""
    known = dict.fromkeys(name for evaluation in evaluations.values() for name in evaluation["models"])
    for group, members in settings.groups.items():
        if not set(members) & set(known):
            raise InputError(f"groups.{group}: none of its models was evaluated; known models: {', '.join(known)}")


def collect_results(sources: Sources, info: StoreInfo) -> dict[str, Any]:
    """Content of results.json. Its "tables" are those of the summary: title, column, metric, value or spread."""
    results: dict[str, Any] = {}
    for title, columns in sources.tables.items():
        results |= group_results(columns, f"{title}_" if title else "")
    return results | {
        "stored_teacher_heldout_loss": sources.evaluation["stored_teacher_loss"],
        "bytes_per_token": info.bytes_per_token,
        "captured_tokens": info.rows,
        "captured_examples": info.examples,
        "capture_tokens_per_s": sources.captures["capture"]["tokens_per_s"],
        "retained_mass": info.retained_mass,
        "quantisation_kl": info.kl,
        "fingerprint": info.spec.fingerprint,
        "snapshot": info.snapshot,
        "stage_seconds": sources.stage_seconds,
        "total_seconds": sum(sources.stage_seconds.values()),
        "hardware": hardware(),
        "tables": {title: table_values(columns) for title, columns in sources.tables.items()},
    }


def summary_table(sources: Sources, info: StoreInfo) -> str:
    """The main results for a terminal."""
    capture = sources.captures["capture"]
    stages = "\n".join(f"{name:<24}{seconds:>12.0f} s" for name, seconds in sources.stage_seconds.items())
    return "\n".join(
        [
            *(f"{title}\n{metrics_table(columns)}\n".lstrip("\n") for title, columns in sources.tables.items()),
            f"{'bytes/token':<24}{info.bytes_per_token:>12.1f}",
            f"{'captured tokens':<24}{info.rows:>12,}",
            f"{'capture tokens/s':<24}{capture['tokens_per_s']:>12,.0f}",
            f"{'truncated examples':<24}{capture['truncated']:>12,}",
            f"{'in quarantine':<24}{info.quarantined:>12,}",
            "",
            stages,
            f"{'total':<24}{sum(sources.stage_seconds.values()):>12.0f} s",
        ]
    )


def capture_totals(store: str) -> dict[str, Any]:
    """Rows, seconds and rate over all runs that filled a store, and their job."""
    path = capture_log_path(store)
    if not path.exists() and (aligned := LogitStore.open(store)).spec.aligned:  # nothing was asked of a teacher
        nothing = {"seconds": 0.0, "start_seconds": 0.0, "truncated": 0, "tokens_per_s": 0.0}
        return {"rows": int(aligned.rows.sum()), **nothing, "job": {"aligned": aligned.spec.aligned}}
    log = read_json(path)
    rows = sum(run["rows"] for run in log["runs"])
    seconds = sum(run["seconds"] for run in log["runs"])
    return {
        "rows": rows,
        "seconds": seconds,
        "start_seconds": sum(run["start_seconds"] for run in log["runs"]),
        "truncated": log["runs"][-1].get("truncated", 0) if log["runs"] else 0,
        "tokens_per_s": rows / seconds if seconds else 0.0,
        "job": log["job"],
    }


def _stage_seconds(
    settings: ReportSettings,
    trainings: Mapping[str, Any],
    captures: Mapping[str, Any],
    evaluations: Mapping[str, Any],
) -> dict[str, float]:
    """Wall seconds of each stage. Work that was lost when a process was killed is not included."""
    seconds = {}
    if settings.examples:
        seconds["examples"] = read_json(settings.examples / "examples.json")["seconds"]
    for name, training in trainings.items():
        seconds[f"train {name}"] = max(training["seconds"], training.get("wall_seconds_last_run", 0.0))
    for name, capture in captures.items():
        seconds["capture" if name == "capture" else f"capture {name}"] = capture["seconds"] + capture["start_seconds"]
    for title, evaluation in evaluations.items():
        seconds[f"evaluate {title}".strip()] = sum(metrics["seconds"] for metrics in evaluation["models"].values())
    return seconds
