"""A job whose student could not be saved, or not be loaded as it was trained, is refused before its first step."""

from pathlib import Path

import pytest

from cache.errors import InputError
from student.training.planning.planner import plan_training
from student.training.planning.stores import OpenStores
from tests.student.training.ranks import LLAMA, TOPK, make_pretrained, make_store, settings_of


def test_a_student_that_would_read_other_ids_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    """Would catch a Qwen2 student with another family's tokenizer: it reloads as Qwen2's. No plan is left."""
    store = make_store(tmp_path / "store", tiny_model, TOPK, 6)
    qwen2 = LLAMA | {"model_type": "qwen2"}
    settings = settings_of(tmp_path / "run", store, model={"config": qwen2})
    with pytest.raises(InputError, match=r"'qwen2': .* as Qwen2Tokenizer, which gives other ids"):
        plan_training(settings, OpenStores())
    assert not (tmp_path / "run").exists()


def test_contradictory_generation_settings_are_left_out_and_named(tiny_model: Path, tmp_path: Path) -> None:
    """Would catch a student that cannot be saved after the last step, and settings that vanish without a word."""
    store = make_store(tmp_path / "store", tiny_model, TOPK, 6)
    base = make_pretrained(tmp_path / "base", tiny_model)
    (base / "generation_config.json").write_text('{"temperature": 0.6, "top_p": 0.9, "early_stopping": true}')
    plan = plan_training(settings_of(tmp_path / "run", store, model={"pretrained": str(base)}), OpenStores())
    assert "generation settings of model.pretrained without effect, left out: " in plan.notes
    for each in ("temperature = 0.6", "top_p = 0.9", "early_stopping = True"):
        assert each in plan.notes


def test_the_plan_of_a_mixture_of_experts_names_the_missing_loss(tiny_model: Path, tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", tiny_model, TOPK, 6)
    experts = LLAMA | {"model_type": "mixtral", "num_local_experts": 2}
    plan = plan_training(settings_of(tmp_path / "run", store, model={"config": experts}), OpenStores())
    assert "trained without a router loss: router_aux_loss_coef = 0.001 has no effect" in plan.notes
