"""The HTML page of a report. It is one file that refers to no other."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from cache.examples.example import Example
from cluster.report import figures
from cluster.report.groups import Metrics
from cluster.report.metrics_table import NOT_METRICS, Spread, format_number, metric_names
from cluster.report.results import Sources
from cluster.report.settings import ReportSettings
from cluster.report.target_statistics import bytes_by_array, entropies, mass_by_k, sample_targets
from cluster.report.training_history import loss_panels, sample_rows
from cluster.runtime.outputs import read_json
from student.tasks import Chart, Panel, Task
from student.tasks.figures import bars

MAX_PANELS = 8


def render_page(settings: ReportSettings, sources: Sources) -> str:
    """The page as HTML text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    answers = _answers(settings, list(sources.evaluation["models"])) if settings.task else {}
    return environment.get_template("report.html.j2").render(
        title=settings.title,
        hardware=sources.evaluation["hardware"],
        tables=sources.tables,
        metric_names=metric_names,
        task_charts=_task_charts(settings.task, answers, sources.tables[""]) if settings.task else [],
        charts=_charts(settings, sources),
        format_number=format_number,
        panels=_panels(settings.task, _one_of_each_group(settings, answers)) if settings.task else [],
        samples=sample_rows(settings.trainings),
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
        ("Bytes per token, by array", bars(bytes_by_array(store), "bytes per token with a target")),
        ("Speed of each stage", bars(speeds, "tokens/s")),
        ("Time of each stage", bars(sources.stage_seconds, "seconds")),
    ]


def _jobs(settings: ReportSettings, sources: Sources) -> dict[str, Any]:
    """Resolved settings of every job, by name."""
    jobs = {name: read_json(path / "job.json") for name, path in settings.trainings.items()}
    jobs |= {name: capture["job"] for name, capture in sources.captures.items()}
    return jobs | {"evaluate": read_json(settings.evaluation / "job.json")}


def _task_charts(
    task: Task, answers: Mapping[str, list[dict[str, Any]]], columns: Mapping[str, Metrics]
) -> list[Chart]:
    """Charts of the task about the answers and about the metrics of the first table."""
    means = {
        column: {
            name: value.mean if isinstance(value, Spread) else float(value)
            for name, value in metrics.items()
            if name not in NOT_METRICS and isinstance(value, Spread | int | float)
        }
        for column, metrics in columns.items()
    }
    return [*task.charts(answers), *task.comparisons(means)]


def _answers(settings: ReportSettings, models: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The answers of each model that has some, in the same order for all models."""
    answers = {name: read_json(settings.evaluation / f"{name}.json").get("answers", []) for name in models}
    return {name: given for name, given in answers.items() if given}


def _one_of_each_group(
    settings: ReportSettings, answers: Mapping[str, list[dict[str, Any]]]
) -> dict[str, list[dict[str, Any]]]:
    """Without models that differ from another one in their seed alone, and without answers that no model wrote."""
    others = {name for members in settings.groups.values() for name in members[1:]}
    others |= set(read_json(settings.evaluation / "job.json").get("controls", ()))
    return {name: given for name, given in answers.items() if name not in others}


def _panels(task: Task, answers: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The first answers of every model to the same prompts, as the task shows them. Empty if it shows nothing."""
    shown = []
    for i in range(min([MAX_PANELS, *map(len, answers.values())] if answers else [0])):
        panels: dict[str, Panel] = {}
        for name, given in answers.items():
            example = Example(given[i]["id"], (), metadata=given[i]["metadata"])
            panel = task.panel(example, given[i]["text"])
            if panel is not None:
                panels[name] = panel
        if panels:
            shown.append({"panels": panels, "prompt": next(iter(panels.values())).prompt})
    return shown
