"""The HTML page of a report. It is one file that refers to no other."""

import json
from pathlib import Path
from typing import Any

import jinja2

from cache.examples.example import Example
from cluster.report import figures
from cluster.report.loss_history import loss_panels
from cluster.report.metrics_table import format_number, metric_names
from cluster.report.results import Sources
from cluster.report.settings import ReportSettings
from cluster.report.target_statistics import bytes_by_array, entropies, mass_by_k, sample_targets
from cluster.runtime.outputs import read_json
from student.tasks import Pictures

MAX_PICTURED_ANSWERS = 8


def render_page(settings: ReportSettings, sources: Sources) -> str:
    """The page as HTML text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    models = sources.evaluation["models"]
    return environment.get_template("report.html.j2").render(
        title=settings.title,
        hardware=sources.evaluation["hardware"],
        models=models,
        metrics=metric_names(models),
        charts=_charts(settings, sources),
        format_number=format_number,
        answers=_pictured_answers(settings, list(models)),
        summary=str(sources.store.info()),
        jobs={name: json.dumps(job, indent=1) for name, job in _jobs(settings, sources).items()},
    )


def _charts(settings: ReportSettings, sources: Sources) -> list[tuple[str, str]]:
    """Caption and SVG of each chart."""
    store, targets = sources.store, sample_targets(sources.store)
    speeds = {f"train {name}": training["tokens_per_s"] for name, training in sources.trainings.items()}
    for name, capture in sources.captures.items():
        speeds["capture" if name == "capture" else f"capture {name}"] = capture["tokens_per_s"]
    return [
        ("Loss of each run over time", figures.loss_curves(loss_panels(settings.trainings))),
        ("The teacher's entropy", figures.entropy_histogram(entropies(targets))),
        ("Mass left out by top-k", figures.retained_mass(mass_by_k(targets, store.spec.targets.max_entries))),
        ("Bytes per token, by array", figures.bars(bytes_by_array(store), "bytes per token with a target")),
        ("Speed of each stage", figures.bars(speeds, "tokens/s")),
        ("Time of each stage", figures.bars(sources.stage_seconds, "seconds")),
    ]


def _jobs(settings: ReportSettings, sources: Sources) -> dict[str, Any]:
    """Resolved settings of every job, by name."""
    jobs = {name: read_json(path / "job.json") for name, path in settings.trainings.items()}
    jobs |= {name: capture["job"] for name, capture in sources.captures.items()}
    return jobs | {"evaluate": read_json(settings.evaluation / "job.json")}


def _pictured_answers(settings: ReportSettings, models: list[str]) -> list[dict[str, Any]]:
    """The first answers of every model to the same prompts, drawn by the task. Empty if there is nothing to draw."""
    if settings.task is None:
        return []
    answers = {name: read_json(settings.evaluation / f"{name}.json").get("answers", []) for name in models}
    pictured = []
    for i in range(min(MAX_PICTURED_ANSWERS, *map(len, answers.values()))):
        pictures: dict[str, Pictures] = {}
        for name in models:
            answer = answers[name][i]
            example = Example(answer["id"], (), metadata=answer["metadata"])
            picture = settings.task.picture(example, answer["text"])
            if picture is not None:
                pictures[name] = picture
        if len(pictures) == len(models):
            pictured.append({"pictures": pictures, "before": next(iter(pictures.values())).before})
    return pictured
