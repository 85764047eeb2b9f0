"""A job that names several stores as one is planned once, pinned, and read the same by every rank."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cache.errors import SpecMismatchError
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from student.training.planning.inputs import open_inputs
from student.training.planning.stores import OpenStores
from tests.student.training.ranks import TOPK, make_store, settings_of
from tests.student.training.test_planning import as_sent, plan_in_driver


def test_a_union_trains_as_one_store_of_its_examples(tmp_path: Path, tiny_model: Path) -> None:
    """Stores of one capture: every example once, in an order that does not depend on where it is."""
    first = LogitStore.open(make_store(tmp_path / "a", tiny_model, TOPK, 6, seed=0))
    second = LogitStore.open(make_store(tmp_path / "b", tiny_model, TOPK, 5, seed=1))
    write_unit(second.storage, second.spec, first[:4])
    take_snapshot(second.storage)
    union = [{"store": str(tmp_path / name)} for name in ("a", "b")]
    settings, plan = plan_in_driver(settings_of(tmp_path / "run", tmp_path / "a", data={"union": union}))
    assert [item.snapshot for item in settings.data.stores] == [1, 2]
    assert plan.examples == 11
    inputs = open_inputs(settings, as_sent(plan), OpenStores())
    assert inputs.left_out == {"in an earlier store of data.union too": 4}
    source = inputs.batches.source  # type: ignore[attr-defined]
    assert sorted(source.texts(i).id for i in range(11)) == sorted(
        [*(f"0-{i}" for i in range(6)), *(f"1-{i}" for i in range(5))]
    )
    for i, window in enumerate(source.read(range(11))):
        assert np.array_equal(window.tokens, source.record(i).tokenized.tokens)
    assert sorted(inputs.batches.order(0, 11, 0).tolist()) == list(range(11))
    make_store(tmp_path / "c", tiny_model, replace(TOPK, k=TOPK.k + 1), 3, seed=5)
    settings = settings_of(tmp_path / "other", tmp_path / "a", data={"union": [*union, {"store": str(tmp_path / "c")}]})
    with pytest.raises(SpecMismatchError, match=r"a and \S+c cannot be one sequence, .* targets\.k"):
        plan_in_driver(settings)
