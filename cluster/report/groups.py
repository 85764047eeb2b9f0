"""Models that differ in their seed alone, as one column of a table."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from cache.errors import InputError
from cluster.report.metrics_table import NOT_METRICS, Spread, metric_names

Metrics = Mapping[str, Any]


def group_models(models: Mapping[str, Metrics], groups: Mapping[str, Sequence[str]]) -> dict[str, Metrics]:
    """The metrics of each group, in the order of `groups`, and before them those of models without a group.

    A metric of a group is a Spread, or the value itself if all models have the same one, such as their size. Models
    without the metric, or for which it is NaN, are counted in the Spread, and have no part in its mean. Groups without
    a model in `models` are left out. Raises InputError if a group has models of which only some are there.
    """
    grouped = {name for members in groups.values() for name in members}
    columns: dict[str, Metrics] = {name: metrics for name, metrics in models.items() if name not in grouped}
    for group, members in groups.items():
        present = [name for name in members if name in models]
        if not present:
            continue
        if missing := [name for name in members if name not in models]:
            known = ", ".join(models)
            raise InputError(f"groups.{group}: no model {missing[0]!r} was evaluated; the evaluation has {known}")
        columns[group] = _spreads([models[name] for name in members])
    return columns


def _spreads(models: Sequence[Metrics]) -> dict[str, Any]:
    spreads: dict[str, Any] = {}
    for name in metric_names({str(i): metrics for i, metrics in enumerate(models)}):
        values = [value for metrics in models if (value := metrics.get(name)) is not None]
        # NaN, such as the kappa of a model that predicts one class, has no place in a mean.
        numbers = [value for value in values if value == value]  # noqa: PLR0124
        missing = len(models) - len(numbers)
        if not numbers:
            spreads |= {name: values[0]} if values else {}
        elif len(set(numbers)) == 1 and not missing:
            spreads[name] = numbers[0]
        else:
            spreads[name] = Spread.of(numbers, missing)
    return spreads


def group_results(columns: Mapping[str, Metrics], prefix: str = "") -> dict[str, Any]:
    """Flat results: PREFIX + COLUMN_metric, and for a spread its mean with _min and _max beside it."""
    results: dict[str, Any] = {}
    for column, metrics in columns.items():
        for name, value in metrics.items():
            if name in NOT_METRICS:
                continue
            key = f"{prefix}{column}_{name}"
            if isinstance(value, Spread):
                results |= {key: value.mean, f"{key}_min": value.lowest, f"{key}_max": value.highest}
                results |= {f"{key}_missing": value.missing} if value.missing else {}
            else:
                results[key] = value
    return results


def table_values(columns: Mapping[str, Metrics]) -> dict[str, dict[str, Any]]:
    """The columns as JSON values: a spread is an object with mean, lowest and highest."""
    return {
        column: {
            name: asdict(value) if isinstance(value, Spread) else value
            for name, value in metrics.items()
            if name not in NOT_METRICS
        }
        for column, metrics in columns.items()
    }


def table_columns(values: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The columns whose JSON values `table_values` made."""
    return {
        column: {name: Spread(**value) if isinstance(value, dict) else value for name, value in metrics.items()}
        for column, metrics in values.items()
    }
