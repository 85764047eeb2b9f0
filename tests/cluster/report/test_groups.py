"""Seeds of one model are one column: mean and range. What is the same for all stays a plain number."""

import json

import pytest

from cache.errors import InputError
from cluster.report.groups import group_models, group_results, table_columns, table_values
from cluster.report.metrics_table import Spread, metrics_table

MODELS = {
    "teacher": {"accuracy": 0.9, "parameters": 100, "rows": 5, "seconds": 1.0},
    "kd_0": {"accuracy": 0.6, "parameters": 10, "rows": 5, "qwk": None},
    "kd_1": {"accuracy": 0.8, "parameters": 10, "rows": 5, "qwk": 0.5},
    "ce_0": {"accuracy": 0.5, "parameters": 10, "rows": 5},
}
GROUPS = {"kd": ("kd_0", "kd_1"), "ce": ("ce_0",)}


def test_a_group_has_mean_and_range_and_what_is_equal_stays_plain() -> None:
    columns = group_models(MODELS, GROUPS)
    assert list(columns) == ["teacher", "kd", "ce"]
    spread = columns["kd"]["accuracy"]
    assert (spread.mean, spread.lowest, spread.highest) == (pytest.approx(0.7), 0.6, 0.8)
    assert columns["kd"]["parameters"] == 10
    assert columns["kd"]["qwk"] == Spread(0.5, 0.5, 0.5, missing=1)  # of the seeds that have it
    assert columns["ce"]["accuracy"] == 0.5


def test_results_have_the_ends_of_the_range() -> None:
    results = group_results(group_models(MODELS, GROUPS), "test_")
    assert results["test_kd_accuracy"] == pytest.approx(0.7)
    assert (results["test_kd_accuracy_min"], results["test_kd_accuracy_max"]) == (0.6, 0.8)
    assert results["test_ce_accuracy"] == 0.5
    assert "test_ce_accuracy_min" not in results
    assert not [name for name in results if name.endswith(("_rows", "_seconds"))]


def test_the_table_is_wide_enough_for_ranges() -> None:
    lines = metrics_table(group_models(MODELS, GROUPS)).splitlines()
    assert "0.7000 (0.6000 to 0.8000)" in lines[1]
    assert len({len(line) for line in lines}) == 1


def test_a_seed_that_was_not_evaluated_is_named() -> None:
    with pytest.raises(InputError, match="kd_2"):
        group_models(MODELS, {"kd": ("kd_0", "kd_2")})
    assert "sft" not in group_models(MODELS, {"sft": ("sft_0",)})  # of another evaluation


def test_tables_survive_json() -> None:
    columns = group_models(MODELS, GROUPS)
    again = table_columns(json.loads(json.dumps(table_values(columns))))
    assert again["kd"]["accuracy"] == columns["kd"]["accuracy"]
    assert metrics_table(again) == metrics_table(columns)


def test_a_metric_that_some_seeds_lack_is_shown_with_their_number() -> None:
    """Would catch metrics that the first seed lacks and that vanish, and NaN that makes a mean and a range useless."""
    models = {"a": {"f1": 0.5}, "b": {"f1": float("nan"), "steps": 0.2}, "c": {"f1": 0.7, "steps": 0.4}}
    columns = group_models(models, {"kd": ("a", "b", "c")})
    assert columns["kd"] == {
        "f1": Spread(pytest.approx(0.6), 0.5, 0.7, missing=1),
        "steps": Spread(pytest.approx(0.3), 0.2, 0.4, missing=1),
    }
    assert "0.6000 (0.5000 to 0.7000, 1 without)" in metrics_table(columns)
    assert group_results(columns)["kd_steps_missing"] == 1
