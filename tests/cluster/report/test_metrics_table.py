"""Metrics as text: every value in the column of its model, and rounded as people read it."""

import pytest

from cluster.report.metrics_table import format_number, metrics_table


@pytest.mark.parametrize(
    "value, text",
    [
        *[(None, ""), (0, "0"), (1234567, "1,234,567"), (0.0, "0.0000"), (1.23456, "1.2346")],
        *[(0.001, "0.0010"), (0.00099, "9.9e-04"), (-0.5, "-0.5000"), (-0.0002, "-2.0e-04")],
    ],
)
def test_a_number_has_four_places_or_its_order(value: float | int | None, text: str) -> None:
    assert format_number(value) == text


def test_models_are_columns_and_metrics_are_rows() -> None:
    """Would catch a value under another model, and counts that are no metric."""
    teacher = {"heldout_loss": 1.5, "validity": 1.0, "rows": 9, "seconds": 2.0, "answers": "a file"}
    table = metrics_table({"teacher": teacher, "kd": {"validity": 0.25, "heldout_loss": 2.5}})
    cells = [line.split() for line in table.splitlines()]
    assert cells == [["teacher", "kd"], ["heldout_loss", "1.5000", "2.5000"], ["validity", "1.0000", "0.2500"]]


def test_a_metric_that_a_model_lacks_leaves_its_cell_empty() -> None:
    table = metrics_table({"teacher": {"validity": 1.0}, "kd": {}, "ce": {"validity": 0.5}})
    line = table.splitlines()[1]
    assert [line[24 + 12 * i : 36 + 12 * i].strip() for i in range(3)] == ["1.0000", "", "0.5000"]
