"""`data.replay` mixes a file, which has no teacher, into the examples of a store."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from cache.examples.example import Example
from cache.examples.files.jsonl import write_examples
from student.data.sources import MixtureSource
from student.tokenizers.bpe import learn_tokenizer, save_tokenizer
from student.training.planning.inputs import open_inputs
from student.training.planning.planner import plan_training
from student.training.planning.stores import OpenStores
from tests.student.models.test_special_students import graded, store_of
from tests.student.training.ranks import settings_of


def settings(tmp_path: Path, tiny_model: Path, **loss: Any) -> Any:
    store = store_of(tmp_path / "store", tiny_model, graded(), 0)
    replayed = [Example(f"old {i}", ({"role": "user", "content": f"old {i}"},), response="two") for i in range(7)]
    write_examples(tmp_path / "old.jsonl", replayed)
    save_tokenizer(learn_tokenizer(graded(), 300), tmp_path / "other")
    return settings_of(
        tmp_path / "run",
        store,
        data={"align": "cross_tokenizer", "replay": {"examples": tmp_path / "old.jsonl", "weight": 3.0}},
        tokenizer={"path": str(tmp_path / "other")},
        loss=loss or {"hard_label_weight": 0.5},
    )


def test_a_batch_has_examples_of_both_and_only_hard_labels_learn_the_file(tmp_path: Path, tiny_model: Path) -> None:
    """Would catch another share of the file, a KL of rows without a teacher, and sizes that a rank computes again."""
    job = settings(tmp_path, tiny_model)
    plan = plan_training(job, OpenStores())
    assert "replay: " in plan.notes and "student tokens" in plan.notes and plan.examples == 47
    inputs = open_inputs(job, plan, OpenStores())
    source = inputs.sources["train"]
    assert isinstance(source, MixtureSource) and source.form.kind == "exact"
    order = source.order(0, 400, 0)
    assert 0.72 < np.mean(order >= 40) < 0.78
    assert source.texts(40).id == "old 0"
    old, new = [int(i) for i in order if i >= 40][:4], [int(i) for i in order if i < 40][:4]
    of_old, of_both = inputs.batches.batch(old), inputs.batches.batch([*old, *new])
    kl, hard = of_old.weights
    assert not kl.any() and (hard > 0).all() and len(hard) >= 8
    assert of_both.weights[0].any() and (of_both.weights[1] > 0).all()
    assert len(of_both.rows) > len(of_old.rows)


def test_a_loss_without_hard_labels_cannot_replay(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(
        ValidationError, match=r"data\.replay has no teacher distributions.*set loss\.hard_label_weight"
    ):
        settings(tmp_path, tiny_model, objective="forward_kl")
