"""The order of examples is in the plan, and a run keeps the one that it began with."""

from dataclasses import replace
from pathlib import Path

import pytest

from cache.errors import SpecMismatchError
from student.training.planning.inputs import open_inputs
from student.training.planning.plan import job_digest
from student.training.planning.stores import OpenStores
from tests.student.training.ranks import TOPK, make_store, settings_of
from tests.student.training.test_planning import as_sent, plan_in_driver


def test_a_run_keeps_the_order_that_it_began_with(tmp_path: Path, tiny_model: Path) -> None:
    """Would catch a rank that goes on in the order of another version, and a plan that does not say its order."""
    make_store(tmp_path / "store", tiny_model, TOPK, 6)
    settings = settings_of(tmp_path / "run", tmp_path / "store", data={"window_tokens": 4096})
    settings, plan = plan_in_driver(settings)
    (order,) = plan.order
    assert order["window"] == 4 and order["block"] > 10, "examples of a few tokens"
    open_inputs(settings, as_sent(plan), OpenStores())
    other = replace(plan, order=[order | {"block": order["block"] + 1}])
    with pytest.raises(SpecMismatchError, match="the run began with its examples in the order"):
        open_inputs(settings, as_sent(other), OpenStores())
    full = settings_of(tmp_path / "full", tmp_path / "store", data={"order": "full"})
    assert plan_in_driver(full)[1].order == [{"block": 1, "window": 1}]
    assert job_digest(full) != job_digest(settings)
