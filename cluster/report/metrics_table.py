"""Metrics of models as a table for a terminal."""

from collections.abc import Mapping
from typing import Any

# What an evaluation reports of a model beside its metrics.
NOT_METRICS = frozenset({"answers", "seconds", "rows"})


def metric_names(models: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Names of the metrics, in the order of the first model."""
    return [name for name in next(iter(models.values())) if name not in NOT_METRICS]


def metrics_table(models: Mapping[str, Mapping[str, Any]]) -> str:
    """Models as columns, metrics as rows."""
    lines = [f"{'':<24}" + "".join(f"{model:>12}" for model in models)]
    for name in metric_names(models):
        cells = [f"{format_number(metrics.get(name)):>12}" for metrics in models.values()]
        lines.append(f"{name:<24}" + "".join(cells))
    return "\n".join(lines)


def format_number(value: float | int | None) -> str:
    """A metric for people: counts as integers, shares and nats with four decimals, tiny values in scientific form."""
    if value is None:
        return ""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if value == 0 or abs(value) >= 1e-3 else f"{value:.1e}"
