"""Objectives that a store would give a biased estimate of are refused at the start, with the reason and the fix."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from cache.errors import InputError, StoreError
from cache.examples.example import Example
from cache.rows.spec import StoreSpec, TargetSpec
from cache.storage.local import LocalStorage
from cache.store.commits import create_store
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from student.data.settings import DataSettings
from student.data.sources import FileSource, MixtureSource, StoreSource
from student.losses.settings import LossSettings, TermSettings
from student.losses.target_forms import TargetForm, require_supported
from student.losses.weighted_objectives import WeightedObjectives
from student.training.run_settings import RunSettings
from tests.cache.rows.rows import random_record, store_spec

EXACT = TargetForm("exact", (2.0, 4.0))
ESTIMATED, TEXTS, COMPLETE = TargetForm("estimated", (2.0,), True), TargetForm("none"), TargetForm("complete")
NONLINEAR = ("reverse_kl", "jsd", "skewed_kl", "skewed_reverse_kl", "tvd")


def loss(**fields: Any) -> LossSettings:
    return LossSettings.model_validate(fields)


def message(form: TargetForm, **fields: Any) -> str:
    with pytest.raises(StoreError) as error:
        require_supported(loss(**fields), form, "store x")
    return str(error.value)


@pytest.fixture
def open_store(tmp_path: Path) -> Callable[..., LogitStore]:
    def make(name: str, spec: StoreSpec, sizes: tuple[tuple[int, int], ...] = ((4, 6), (3, 9))) -> LogitStore:
        rng, storage = np.random.default_rng(0), LocalStorage(tmp_path / name)
        create_store(storage, spec)
        write_unit(storage, spec, [random_record(rng, str(i), *size, spec.targets) for i, size in enumerate(sizes)])
        take_snapshot(storage)
        return LogitStore.open(str(storage.root))

    return make


def test_forms_are_those_of_the_stores() -> None:
    assert TargetForm.of(TargetSpec("topk", 8, temperatures=(2.0,))) == TargetForm("exact", (2.0,))
    assert TargetForm.of(TargetSpec("nucleus", 8, mass=0.9)).kind == "exact"
    assert TargetForm.of(TargetSpec("threshold", threshold=0.1, entropy=True)) == TargetForm("estimated", (), True)
    assert TargetForm.of(TargetSpec("sampled", draws=8)).kind == "estimated"
    assert TargetForm.of(TargetSpec("topk", 0)).kind == "none"


@pytest.mark.parametrize("objective", NONLINEAR)
def test_estimates_refuse_what_is_not_linear(objective: str) -> None:
    """E[f(p)] is not f(E[p]): such a loss would be biased without any sign of it."""
    told = message(ESTIMATED, objective=objective)
    assert told.startswith("store x: has unbiased estimates (threshold or sampled targets)")
    assert f"{objective} is not linear in the teacher's distribution and would be biased" in told
    assert "use forward_kl, or capture topk or nucleus targets" in told
    mixed = message(ESTIMATED, terms=[{"objective": "forward_kl"}, {"objective": objective, "weight": 0.1}])
    assert mixed == told
    require_supported(loss(objective=objective), EXACT, "")


def test_estimates_refuse_temperatures_and_renormalising() -> None:
    """Also a temperature whose normaliser is stored: powers of an estimate are biased."""
    told = message(ESTIMATED, temperature=2.0)
    assert "which are biased at a temperature of 2.0; use temperature = 1" in told
    told = message(ESTIMATED, tail="renormalise")
    assert "so no tail to renormalise; leave out loss.tail" in told
    require_supported(loss(hard_label_weight=0.5), ESTIMATED, "")


def test_a_temperature_off_the_grid_is_refused() -> None:
    told = message(EXACT, temperature=3.0)
    assert "has log-normalisers for the temperatures 1, 2, 4, not for 3" in told
    assert "capture again with targets.temperatures = [3]" in told
    for temperature in (1.0, 2.0, 4.0):
        require_supported(loss(temperature=temperature), EXACT, "")
    assert "temperatures 1, not for 2" in message(TargetForm("exact"), temperature=2.0)


@pytest.mark.parametrize("objective", ["forward_kl", *NONLINEAR])
def test_texts_teach_hard_labels_alone(objective: str) -> None:
    told = message(TEXTS, objective=objective)
    assert f"has texts without targets, but {objective} needs the teacher's distributions" in told
    assert 'train with loss.objective = "hard_label"' in told
    require_supported(loss(objective="hard_label"), TEXTS, "")


def test_complete_distributions_have_no_tail() -> None:
    assert "no tail to renormalise" in message(COMPLETE, tail="renormalise")
    for objective in ("forward_kl", *NONLINEAR):
        require_supported(loss(objective=objective, temperature=3.0), COMPLETE, "")


@pytest.mark.parametrize("objective", NONLINEAR)
def test_a_renormalised_teacher_is_for_forward_kl(objective: str) -> None:
    with pytest.raises(ValidationError, match=f"{objective} with a renormalised teacher is infinite or undefined"):
        TermSettings.model_validate({"objective": objective, "tail": "renormalise"})
    with pytest.raises(ValidationError, match="infinite or undefined"):
        loss(objective=objective, tail="renormalise")


@pytest.mark.parametrize(
    "fields, told",
    [
        ({"objective": "hard_label", "temperature": 2.0}, "hard_label has neither a temperature nor a tail"),
        (
            {"objective": "forward_kl", "beta": 0.3},
            "beta is a parameter of jsd, skewed_kl, skewed_reverse_kl, not of forw",
        ),
        ({"objective": "jsd", "beta": 1.0}, "less than 1"),
        ({"objective": "forward_kl", "temperature": 0.0}, "greater than 0"),
        ({"terms": [{"objective": "forward_kl", "weight": 0.0}]}, "greater than 0"),
        ({"objective": "hard_label", "hard_label_weight": 0.5}, "hard_label_weight adds hard labels to another"),
        ({"segments": {"rationale": 0, "label": 0, "response": 0}}, "at least one segment needs a weight above 0"),
        (
            {"terms": [{"objective": "hard_label"}], "temperature": 2.0},
            "'terms' replaces temperature; leave",
        ),
        (
            {"terms": [{"objective": "tvd"}], "hard_label_weight": 0.5},
            "'terms' replaces hard_label_weight; leave",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        loss(**fields)


def test_offload_and_batches_must_fit() -> None:
    with pytest.raises(ValueError, match="batch_size 8 must be a multiple of ranks x micro_batch_size = 2 x 3"):
        RunSettings(steps=1, batch_size=8, ranks=2, micro_batch_size=3).require_whole_micro_batches()
    with pytest.raises(ValidationError, match="offload = 'all' needs zero_stage 3"):
        RunSettings(steps=1, offload="all", zero_stage=2)
    with pytest.raises(ValidationError, match="offload = 'optimizer' needs zero_stage 1 to 3"):
        RunSettings(steps=1, offload="optimizer", zero_stage=0)


def test_a_mix_keeps_its_weights_and_temperatures() -> None:
    """Would catch a share of hard labels that is added on top, and a temperature that is decoded twice."""
    both = loss(objective="jsd", temperature=2.0, hard_label_weight=0.25).all_terms
    assert [(t.objective, t.weight, t.temperature) for t in both] == [("jsd", 0.75, 2.0), ("hard_label", 0.25, 1.0)]
    assert both[0].parameter == 0.5 and TermSettings(objective="skewed_kl").parameter == 0.1
    temperatures = [4.0, 1.0, 4.0, 2.0]
    terms = [{"objective": "forward_kl", "temperature": t} for t in temperatures]
    assert WeightedObjectives.of(loss(terms=[*terms, {"objective": "hard_label"}]), EXACT).temperatures == (
        4.0,
        1.0,
        2.0,
    )
    assert WeightedObjectives.of(loss(objective="hard_label"), EXACT).temperatures == ()


def test_prompts_without_teacher_rows_are_refused(open_store: Callable[..., LogitStore]) -> None:
    """Would catch a run that counts prompts and silently learns none of them. Hard labels need no teacher."""
    store = open_store("s", store_spec(TargetSpec("topk", 8)))
    data = DataSettings(store=str(store.storage))
    with pytest.raises(
        StoreError, match=r"has no targets for prompts, to which forward_kl gives the weight 0\.5; .*= \"all\""
    ):
        StoreSource(store, data, loss(segments={"prompt": 0.5}))
    own = [{"objective": "hard_label", "segments": {"prompt": 1.0}}, {"objective": "forward_kl"}]
    assert len(StoreSource(store, data, loss(terms=own))) == 2
    swapped = [{"objective": "hard_label"}, {"objective": "tvd", "segments": {"prompt": 1.0}}]
    with pytest.raises(StoreError, match="to which tvd gives the weight 1"):
        StoreSource(store, data, loss(terms=swapped))


def test_examples_that_do_not_fit_are_left_out_and_counted(open_store: Callable[..., LogitStore]) -> None:
    """max_tokens, origins, and prompts alone, which carry no loss."""
    store = open_store("s", store_spec(TargetSpec("topk", 8)), ((4, 6), (3, 9), (5, 0)))
    source = StoreSource(store, DataSettings(store=str(store.storage), max_tokens=11), loss())
    assert source.tokens.tolist() == [10]
    assert source.left_out == {"longer than data.max_tokens = 11": 1, "without a token that has a loss": 1}
    whole = StoreSource(store, DataSettings(store=str(store.storage)), loss())
    assert (sorted(whole.tokens.tolist()), whole.left_out.total()) == ([10, 12], 1)
    with pytest.raises(StoreError, match="no example with origin scored fits"):
        StoreSource(store, DataSettings(store=str(store.storage), origins=("scored",), max_tokens=5), loss())
    with pytest.raises(StoreError, match="no example with origin generated fits"):
        StoreSource(store, DataSettings(store=str(store.storage), origins=("generated",)), loss())


def test_a_mixture_is_of_one_kind_of_targets(open_store: Callable[..., LogitStore]) -> None:
    specs = [TargetSpec("topk", 8), TargetSpec("topk", 16), TargetSpec("threshold", threshold=0.05)]
    stores = [open_store(str(i), store_spec(targets)) for i, targets in enumerate(specs)]
    sources = [StoreSource(store, DataSettings(store=str(store.storage)), loss()) for store in stores]
    with pytest.raises(StoreError, match=re.escape("a mixture needs targets of one kind, and these differ: ")) as error:
        MixtureSource([sources[0], sources[2]], [1.0, 1.0])
    assert "topk, k = 8" in str(error.value) and "threshold, probability 0.05" in str(error.value)
    mixed = MixtureSource(sources[:2], [1.0, 3.0])
    drawn = mixed.order(0, 1024, 5)
    assert (drawn < 2).sum() == 256
    alone = [sources[0].read([0])[0], sources[1].read([1])[0]]
    for ours, wanted in zip(mixed.read([3, 0]), reversed(alone), strict=True):
        assert np.array_equal(ours.tokens, wanted.tokens) and np.array_equal(ours.targets.ids, wanted.targets.ids)
    assert mixed.texts(3).id == "1" and mixed.texts(0).id == "0"


def test_a_file_of_examples_needs_responses() -> None:
    data = DataSettings(examples=Path("some.jsonl"))
    silent = [Example("0", ({"role": "user", "content": "text"},))]
    with pytest.raises(InputError, match=r"examples file some\.jsonl: no example has a response that fits max_tokens"):
        FileSource(silent, None, data, loss(objective="hard_label"))  # type: ignore[arg-type]
