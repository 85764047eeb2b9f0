"""Encoders with a head for classes: of every common family the states that the head reads give the model's logits."""

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, BertConfig, PreTrainedTokenizerFast

from student.models.build import build_model
from student.models.kinds.causal import STUDENT_KIND as CAUSAL
from student.models.model_parts import head_of, hidden_states
from student.models.registry import kind_of
from student.models.settings import ModelSettings
from student.tokenizers.wordpiece import learn_wordpiece

SMALL = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": SMALL,
    "roberta": SMALL,
    "electra": {**SMALL, "embedding_size": 16},
    "deberta-v2": SMALL,
    "albert": {**SMALL, "embedding_size": 16},
    "distilbert": {"vocab_size": 60, "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16},
}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return learn_wordpiece(["ice is cold", "heat flows"], 60)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_head_and_its_states_give_the_models_own_logits(family: str) -> None:
    config = AutoConfig.for_model(family, num_labels=3, **FAMILIES[family])
    assert kind_of(config).name == "sequence_classifier"
    model = AutoModelForSequenceClassification.from_config(config).eval()
    inputs = {"input_ids": torch.arange(4, 14).view(2, 5), "attention_mask": torch.ones(2, 5, dtype=torch.int64)}
    with torch.no_grad():
        states, logits = hidden_states(model, inputs), model(**inputs).logits
    assert head_of(model).out_features == 3
    assert torch.allclose(head_of(model)(states), logits, atol=1e-6)
    assert not head_of(model)._forward_pre_hooks, "a hook is left behind"


def test_a_decoder_is_no_encoder() -> None:
    assert kind_of(BertConfig(is_decoder=True)) is CAUSAL
    assert kind_of(AutoConfig.for_model("t5")).name == "encoder_decoder"


def test_a_pretrained_encoder_gets_a_head_for_the_classes(tmp_path: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    """Its body is the pretrained one; its head depends on the seed."""
    from transformers import BertModel

    torch.manual_seed(1)
    body = BertModel(BertConfig(**SMALL, hidden_dropout_prob=0.5))
    body.save_pretrained(tmp_path)
    settings = ModelSettings(pretrained=str(tmp_path))
    first, same, other = (build_model(settings, 0, tokenizer, seed, ("no", "yes", "maybe")) for seed in (3, 3, 4))
    assert first.config.id2label == {0: "no", 1: "yes", 2: "maybe"} and first.config.hidden_dropout_prob == 0
    assert torch.equal(first.bert.encoder.layer[0].output.dense.weight, body.encoder.layer[0].output.dense.weight)
    assert torch.equal(first.classifier.weight, same.classifier.weight)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)
