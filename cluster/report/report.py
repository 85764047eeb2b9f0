"""Gather what jobs left behind into results.json, a table on the terminal and one self-contained HTML page."""

import json
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from cache.documents import write_json
from cache.examples.example import Example
from cache.rows.sparse_targets import SparseTargets
from cache.store.logit_store import LogitStore
from cluster.capture.driver import capture_log
from cluster.job.outputs import hardware, read_json
from cluster.report import figures
from cluster.report.settings import ReportSettings
from cluster.report.tables import metrics_table, number
from student.tasks import Pictures, Task

EDITS_SHOWN = 8


def run_report(settings: ReportSettings) -> str:
    """Write results.json and report.html into the output folder; returns the table."""
    evaluation = read_json(settings.evaluation / "evaluation.json")
    trainings = {name: read_json(path / "training.json") for name, path in settings.trainings.items()}
    captures = {"capture": _capture_totals(settings.store), "heldout": _capture_totals(settings.heldout_store)}
    store = LogitStore.open(str(settings.store))
    info = store.info()
    stage_seconds = _stage_seconds(settings, trainings, captures, evaluation["models"])
    results: dict[str, Any] = {}
    for name, metrics in evaluation["models"].items():
        results |= {f"{name}_{key}": value for key, value in metrics.items() if key not in ("rows", "seconds")}
    results |= {
        "stored_teacher_heldout_loss": evaluation["stored_teacher_loss"],
        "bytes_per_token": info.bytes_per_token,
        "captured_tokens": info.rows,
        "captured_examples": info.examples,
        "capture_tokens_per_s": captures["capture"]["tokens_per_s"],
        "retained_mass": info.retained_mass,
        "quantisation_kl": info.kl,
        "fingerprint": info.spec.fingerprint,
        "snapshot": info.snapshot,
        "stage_seconds": stage_seconds,
        "total_seconds": sum(stage_seconds.values()),
        "hardware": hardware(),
    }
    write_json(settings.output / "results.json", results)
    page = _page(settings, store, evaluation, trainings, captures, stage_seconds)
    draft = settings.output / ".report.html.tmp"
    draft.write_text(page)
    draft.replace(settings.output / "report.html")
    stages = "\n".join(f"{name:<24}{seconds:>12.0f} s" for name, seconds in stage_seconds.items())
    return "\n".join(
        [
            metrics_table(evaluation["models"]),
            "",
            f"{'bytes/token':<24}{info.bytes_per_token:>12.1f}",
            f"{'captured tokens':<24}{info.rows:>12,}",
            f"{'capture tokens/s':<24}{captures['capture']['tokens_per_s']:>12,.0f}",
            f"{'truncated examples':<24}{captures['capture']['truncated']:>12,}",
            f"{'in quarantine':<24}{info.quarantined:>12,}",
            "",
            stages,
            f"{'total':<24}{sum(stage_seconds.values()):>12.0f} s",
            "",
            f"{settings.output / 'results.json'}\n{settings.output / 'report.html'}",
        ]
    )


def _capture_totals(store: str) -> dict[str, Any]:
    """Rows, seconds and rate over all runs that filled a store, and their job."""
    log = read_json(capture_log(store))
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
    settings: ReportSettings, trainings: dict[str, Any], captures: dict[str, Any], models: dict[str, Any]
) -> dict[str, float]:
    """Wall seconds of each stage. Work that a kill threw away is not in it."""
    seconds = {}
    if settings.examples:
        seconds["examples"] = read_json(settings.examples / "examples.json")["seconds"]
    for name, training in trainings.items():
        seconds[f"train {name}"] = max(training["seconds"], training.get("wall_seconds_last_run", 0.0))
    for name, capture in captures.items():
        seconds["capture" if name == "capture" else f"capture {name}"] = capture["seconds"] + capture["start_seconds"]
    seconds["evaluate"] = sum(metrics["seconds"] for metrics in models.values())
    return seconds


def _page(
    settings: ReportSettings,
    store: LogitStore,
    evaluation: dict[str, Any],
    trainings: dict[str, Any],
    captures: dict[str, Any],
    stage_seconds: dict[str, float],
) -> str:
    targets = [window.targets for window in store.read(range(0, len(store), max(1, len(store) // 2000)))]
    speeds = {f"train {name}": training["tokens_per_s"] for name, training in trainings.items()}
    speeds |= {
        f"capture {name}".replace("capture capture", "capture"): c["tokens_per_s"] for name, c in captures.items()
    }
    charts = [
        (
            "What each run minimises, while training",
            figures.loss_curves({n: _curve(p) for n, p in settings.trainings.items()}),
        ),
        ("The teacher's entropy", figures.entropy_histogram(np.concatenate([_entropies(t) for t in targets]))),
        ("Mass left out by top-k", figures.retained_mass(_mass_by_k(targets, store.spec.targets.most_entries))),
        ("Bytes per token, by array", figures.bars(_bytes_by_array(store), "bytes per token with a target")),
        ("Speed of each stage", figures.bars(speeds, "tokens/s")),
        ("Time of each stage", figures.bars(stage_seconds, "seconds")),
    ]
    jobs = {name: read_json(path / "job.json") for name, path in settings.trainings.items()}
    jobs |= {name: capture["job"] for name, capture in captures.items()}
    jobs["evaluate"] = read_json(settings.evaluation / "job.json")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("report.html.j2").render(
        title=settings.title,
        hardware=evaluation["hardware"],
        models=evaluation["models"],
        metrics=[key for key in next(iter(evaluation["models"].values())) if key not in ("rows", "seconds")],
        charts=charts,
        number=number,
        edits=_edits(settings),
        summary=str(store.info()),
        jobs={name: json.dumps(job, indent=1) for name, job in jobs.items()},
    )


def _curve(output: Path) -> figures.Curve:
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [line["tokens"] for line in lines], [line["objective"] for line in lines]


def _entropies(targets: SparseTargets) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Entropy of each row in nats; where the teacher did not give it, the tail counts as one outcome: a lower bound."""
    if targets.entropy is not None:
        return targets.entropy[targets.counts > 0].astype(np.float64)
    log_p = targets.logprobs.astype(np.float64)
    head = np.bincount(targets.row_of_entry, weights=-np.exp(log_p) * log_p, minlength=len(targets))
    log_tail = targets.log_tail.astype(np.float64)
    tail = np.where(np.isfinite(log_tail), -np.exp(log_tail) * np.where(np.isfinite(log_tail), log_tail, 0), 0)
    return np.asarray((head + tail)[targets.counts > 0])


def _mass_by_k(targets: list[SparseTargets], k: int) -> dict[int, float]:
    sizes = [size for size in (1, 2, 4, 8, 16, 32, 64, 128, 256) if size < k] + [k]
    return {size: float(np.concatenate([t.retained_mass(size) for t in targets]).mean()) for size in sizes}


def _bytes_by_array(store: LogitStore) -> dict[str, float]:
    """Bytes per token with a target, for each array and for all the metadata."""
    info = store.info()
    totals = store.bytes_by_array()
    totals["metadata"] = info.bytes - sum(totals.values())
    return {name: total / info.rows for name, total in sorted(totals.items(), key=lambda item: -item[1])}


def _edits(settings: ReportSettings) -> list[dict[str, Any]]:
    """The first answers of every model to the same prompts, drawn."""
    task: Task = settings.task
    models = list(read_json(settings.evaluation / "evaluation.json")["models"])
    answers = {name: read_json(settings.evaluation / f"{name}.json")["answers"] for name in models}
    edits = []
    for i in range(min(EDITS_SHOWN, len(answers[models[0]]))):
        pictures: dict[str, Pictures | None] = {}
        for name in models:
            given = answers[name][i]
            example = Example(given["id"], (), metadata=given["metadata"])
            pictures[name] = task.picture(example, given["text"])
        if all(pictures.values()):
            edits.append({"pictures": pictures, "before": next(iter(pictures.values())).before})  # type: ignore[union-attr]
    return edits
