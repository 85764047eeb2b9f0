"""Trials side by side: rows for the terminal, and one page. Trials that differ in their seed alone are one row."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jinja2

from cluster.report import figures
from cluster.report.groups import group_models, table_values
from cluster.report.metrics_table import NOT_METRICS, Spread, format_number, metric_names
from cluster.report.training_history import loss_panels
from cluster.runtime.hardware import hardware
from cluster.sweep.settings import SweepSettings
from cluster.sweep.trials import Trial, identity, label, without_seed
from student.training.run_files import METRICS

Metrics = Mapping[str, Any]
# Where the template is that gives every page its looks.
STYLES = Path(figures.__file__).parent


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the comparison. label: the changes in words, without the seed. states: how many trials are in each."""

    label: str
    trials: tuple[str, ...]
    states: Mapping[str, int]
    metrics: Metrics

    def as_json(self) -> dict[str, Any]:
        """The row for a result file."""
        metrics = table_values({"": self.metrics})[""]
        return {"label": self.label, "trials": self.trials, "states": dict(self.states), "metrics": metrics}

    def state(self) -> str:
        """The states in words."""
        if len(self.states) == 1:
            return next(iter(self.states))
        return ", ".join(f"{count} {state}" for state, count in self.states.items())


def rows_of(
    trials: Sequence[Trial], metrics: Mapping[str, Metrics], outcomes: Mapping[str, Mapping[str, Any]]
) -> list[Row]:
    """A row for all trials that differ in their seed alone. metrics, outcomes: by the name of the trial."""
    members: dict[str, list[Trial]] = {}
    for trial in trials:
        members.setdefault(identity(without_seed(trial.changes)), []).append(trial)
    rows = []
    for alike in members.values():
        text, names = label(without_seed(alike[0].changes)) or "all seeds", [trial.name for trial in alike]
        states: dict[str, int] = {}
        for name in names:
            state = outcomes.get(name, {}).get("state", "missing")
            states[state] = states.get(state, 0) + 1
        measured = [name for name in names if metrics.get(name)]
        columns = group_models({name: metrics[name] for name in measured}, {text: measured}) if measured else {}
        rows.append(Row(text, tuple(names), states, columns.get(text, {})))
    return rows


def ordered(rows: Sequence[Row], metric: str, mode: Literal["min", "max"]) -> list[Row]:
    """The best first, by the mean; rows without the metric are last."""

    def key(row: Row) -> float:
        value = row.metrics.get(metric)
        number = value.mean if isinstance(value, Spread) else value
        if number is None or not math.isfinite(number):
            return math.inf
        return float(number if mode == "min" else -number)

    return sorted(rows, key=key)


def table(rows: Sequence[Row], metric: str) -> str:
    """The comparison for a terminal: rank, changes, the metric, state."""
    lines = [
        (str(number), row.label, format_number(row.metrics.get(metric)), row.state())
        for number, row in enumerate(rows, 1)
    ]
    lines.insert(0, ("", "trial", metric, "state"))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        f"{number:>{widths[0]}}  {text:<{widths[1]}}  {value:>{widths[2]}}  {state}".rstrip()
        for number, text, value, state in lines
    )


def page(settings: SweepSettings, trials: Sequence[Trial], rows: Sequence[Row]) -> str:
    """The comparison as one HTML file that refers to no other."""
    folders = [Path(__file__).parent, STYLES]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders), autoescape=True, undefined=jinja2.StrictUndefined
    )
    named = {str(number): row.metrics for number, row in enumerate(rows)}
    names = [name for name in metric_names(named) if name != settings.metric and name not in NOT_METRICS]
    best_first = {name: number for number, row in enumerate(rows) for name in row.trials}
    started = {
        f"{trial.label or 'as it is'} ({trial.name})": trial.settings.output
        for trial in sorted(trials, key=lambda trial: best_first[trial.name])
        if (trial.settings.output / METRICS).exists()
    }
    return environment.get_template("sweep.html.j2").render(
        title=f"Sweep of {settings.train.name}",
        settings=settings,
        rows=rows,
        metrics=[settings.metric, *names],
        format_number=format_number,
        curves=figures.loss_curves(loss_panels(started)) if started else "",
        trials=[(trial.label, trial.name) for trial in trials],
        hardware=hardware(),
    )
