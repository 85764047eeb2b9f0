"""The card of a student says what it is, how to use it, and what it learned from."""

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from student.training.model_card import USAGE, model_card
from student.training.train import count_parameters
from tests.student.models.test_special_students import CLASSES, COMPACT
from tests.student.training.ranks import settings_of

STORE = {"uri": "s3://some/store", "snapshot": 3, "fingerprint": "f" * 64, "teacher": "org/big", "targets": "topk"}
RESULT: dict[str, Any] = {
    "stores": [STORE],
    "steps": 1200,
    "tokens": 34567,
    "parameters": 1234567,
    "trained_parameters": 4321,
    "examples": 5000,
    "examples_left_out": 7,
    "best_step": None,
    "best_loss": None,
    "last_loss": 0.75,
}
CONFIG = AutoConfig.for_model("llama")
LOSS = {"terms": [{"objective": "forward_kl", "temperature": 2.0, "weight": 0.7}, {"objective": "hard_label"}]}


def test_the_card_names_the_data(tmp_path: Path) -> None:
    """Would catch a student whose store cannot be found again."""
    card = model_card(settings_of(tmp_path / "small", tmp_path / "store", loss=LOSS), RESULT, CONFIG)
    for fact in (
        "# small",
        "A llama model trained from random weights by offline distillation from org/big",
        "It has 1,234,567 parameters",
        "| loss | 0.7 x forward_kl at temperature 2 + 1 x hard_label |",
        "| teacher | org/big |",
        "s3://some/store, snapshot 3",
        f"`{'f' * 64}`",
        "5,000 examples; 7 others",
        "1,200 of 8 examples, 34,567 tokens",
        "peak learning rate 0.003, constant",
        "| training loss of the last step | 0.7500 |",
        "AutoModelForCausalLM",
    ):
        assert fact in card
    assert "best" not in card and "held-out" not in card
    best = model_card(settings_of(tmp_path, tmp_path), {**RESULT, "best_step": 40, "best_loss": 1.23456}, CONFIG)
    assert "| held-out loss | 1.2346 at step 40" in best


def test_hubs_can_read_the_metadata(tmp_path: Path) -> None:
    card = model_card(settings_of(tmp_path, tmp_path, model={"pretrained": "org/base"}), RESULT, CONFIG)
    data = ModelCard(card).data.to_dict()
    assert data["library_name"] == "transformers" and data["pipeline_tag"] == "text-generation"
    assert data["base_model"] == "org/base" and data["base_model_relation"] == "finetune"
    assert data["tags"] == ["logitbank", "knowledge-distillation"]
    assert "license" not in data and "datasets" not in data, "what is not known is left out"
    public = {**RESULT, "stores": [{**STORE, "uri": "hf://datasets/org/data/store"}]}
    card = model_card(settings_of(tmp_path, tmp_path), public, CONFIG)
    assert ModelCard(card).data.to_dict()["datasets"] == ["org/data"]


def test_hard_labels_are_not_called_distillation(tmp_path: Path) -> None:
    card = model_card(settings_of(tmp_path, tmp_path, loss={"objective": "hard_label"}), RESULT, CONFIG)
    assert "distill" not in card and "on hard labels" in card


def test_no_local_path_is_in_the_card(tmp_path: Path) -> None:
    """The licence comes from the card of the base model."""
    base = tmp_path / "private" / "base"
    base.mkdir(parents=True)
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Base\n")
    local = {"uri": str(tmp_path / "demo" / "store"), "teacher": str(tmp_path / "teacher" / "model")}
    settings = settings_of(tmp_path / "small", tmp_path / "store", model={"pretrained": str(base)})
    card = model_card(settings, {**RESULT, "stores": [{**STORE, **local}]}, CONFIG)
    assert str(tmp_path) not in card
    assert "demo/store, snapshot 3" in card and "| teacher | teacher/model |" in card
    data = ModelCard(card).data.to_dict()
    assert data["license"] == "apache-2.0" and "base_model" not in data


@pytest.mark.parametrize(
    "model, sections, tag, head",
    [
        ("t5", {}, "text2text-generation", "AutoModelForSeq2SeqLM"),
        ("logitbank_compact", {"model": {"config": COMPACT}, "classes": CLASSES}, "text-classification", "id2label"),
    ],
)
def test_each_kind_of_student_has_its_usage(
    tmp_path: Path, model: str, sections: dict[str, Any], tag: str, head: str
) -> None:
    card = model_card(settings_of(tmp_path, tmp_path, **sections), RESULT, AutoConfig.for_model(model))
    assert ModelCard(card).data.to_dict()["pipeline_tag"] == tag and head in card


def test_merged_adapters_are_not_counted() -> None:
    model = nn.Module()
    model.base = nn.Linear(4, 4, bias=False).requires_grad_(False)
    model.lora_A = nn.Linear(4, 2, bias=False)
    assert count_parameters(model) == (16, 8)


@pytest.mark.parametrize("kind", ["text-generation", "text-classification"])
def test_the_usage_in_the_card_runs(
    tmp_path: Path, tiny_model: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_model
    if kind == "text-classification":
        folder = tmp_path / "classifier"
        config = AutoConfig.for_model(**{**COMPACT, "vocab_size": 400, "id2label": {0: "one", 1: "two"}})
        AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
        AutoTokenizer.from_pretrained(tiny_model).save_pretrained(str(folder))
    code = USAGE[kind].replace("FOLDER", str(folder)).replace("max_new_tokens=128", "max_new_tokens=2")
    exec(code.replace("...", "say one"), {})
    assert capsys.readouterr().out
