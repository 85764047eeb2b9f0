"""Metrics of models, or of groups of models, as a table for a terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# What an evaluation reports of a model beside its metrics.
NOT_METRICS = frozenset({"answers", "left_out", "seconds", "rows", "target_rows"})


@dataclass(frozen=True, slots=True)
class Spread:
    """A metric of several models: mean, lowest and highest value. missing: models that have no value."""

    mean: float
    lowest: float
    highest: float
    missing: int = 0

    @classmethod
    def of(cls, values: Sequence[float], missing: int = 0) -> "Spread":
        """The spread of one value or more."""
        return cls(sum(values) / len(values), min(values), max(values), missing)


def metric_names(models: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Names of the metrics, in the order of the first model that has each."""
    return [name for name in dict.fromkeys(name for m in models.values() for name in m) if name not in NOT_METRICS]


def metrics_table(models: Mapping[str, Mapping[str, Any]]) -> str:
    """Models as columns, metrics as rows. A column is as wide as its longest cell, and at least 12 characters."""
    names = metric_names(models)
    columns = {model: [format_number(metrics.get(name)) for name in names] for model, metrics in models.items()}
    widths = {model: max(12, len(model) + 2, *(len(cell) + 2 for cell in cells)) for model, cells in columns.items()}
    first = max([24, *(len(name) + 1 for name in names)])
    lines = [" " * first + "".join(f"{model:>{widths[model]}}" for model in models)]
    for row, name in enumerate(names):
        lines.append(f"{name:<{first}}" + "".join(f"{columns[model][row]:>{widths[model]}}" for model in models))
    return "\n".join(lines)


def format_number(value: Any) -> str:
    """A metric for people: counts as integers, shares and nats with four decimals, tiny values in scientific form.

    A spread is written as its mean, with lowest and highest value in brackets, and how many models have no value.
    """
    if value is None:
        return ""
    if isinstance(value, Spread):
        missing = f", {value.missing} without" if value.missing else ""
        return f"{format_number(value.mean)} ({format_number(value.lowest)} to {format_number(value.highest)}{missing})"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if value == 0 or abs(value) >= 1e-3 else f"{value:.1e}"
