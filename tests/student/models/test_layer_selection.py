"""A student of some layers computes what its teacher does when the other layers are passed over."""

import copy
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedModel,
    Qwen2Config,
    T5Config,
    T5ForConditionalGeneration,
)

from cache.errors import InputError
from student.models.layer_selection import keep_layers
from student.models.settings import ModelSettings

SIZES = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 6, "num_attention_heads": 2}
GROUPED = {**SIZES, "num_key_value_heads": 1}
CONFIGS = {
    "llama": LlamaConfig(**GROUPED),
    "tied": LlamaConfig(**GROUPED, tie_word_embeddings=True),
    "qwen2": Qwen2Config(**GROUPED),
    "gpt2": GPT2Config(vocab_size=60, n_embd=32, n_layer=6, n_head=2),
    "gemma3_text": Gemma3TextConfig(**GROUPED, head_dim=16, sliding_window=4),  # its layers are of two kinds
}


def layers_of(model: PreTrainedModel) -> Any:
    return model.base_model.h if hasattr(model.base_model, "h") else model.base_model.layers


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(("layers", "kept"), [(3, [0, 2, 5]), ((1, 4), [1, 4]), (1, [0]), (6, [0, 1, 2, 3, 4, 5])])
def test_the_student_is_its_teacher_without_the_other_layers(name: str, layers: Any, kept: list[int]) -> None:
    torch.manual_seed(0)
    teacher = AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS[name])).eval()
    student = keep_layers(teacher, layers, name).eval()
    assert student.config.num_hidden_layers == len(kept) == len(layers_of(student))
    for place, number in enumerate(kept):
        mine, its = (layers_of(model)[i].state_dict() for model, i in ((student, place), (teacher, number)))
        assert all(torch.equal(mine[key], its[key]) for key in its)
    if kinds := getattr(teacher.config, "layer_types", None):
        assert student.config.layer_types == [kinds[number] for number in kept]
    tokens = torch.randint(60, (2, 9))
    with torch.no_grad():
        logits = student(tokens, use_cache=False).logits
        stack = layers_of(teacher)
        del stack[:]
        stack.extend(layers_of(student))
        teacher.config = teacher.base_model.config = student.config
        assert torch.allclose(teacher(tokens, use_cache=False).logits, logits, atol=1e-6)


def test_an_encoder_may_be_shortened_too() -> None:
    model = AutoModelForSequenceClassification.from_config(BertConfig(**SIZES, num_labels=3))
    assert len(keep_layers(model, 2, "bert").base_model.encoder.layer) == 2


def test_what_has_no_such_layers_is_refused() -> None:
    llama = AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS["llama"]))
    with pytest.raises(InputError, match="'x' has 6 layers; give a smaller number"):
        keep_layers(llama, 7, "x")
    with pytest.raises(InputError, match="'x' has no layer 6"):
        keep_layers(llama, (0, 6), "x")
    t5 = T5ForConditionalGeneration(T5Config(vocab_size=60, d_model=16, d_kv=8, d_ff=16, num_layers=2, num_heads=2))
    with pytest.raises(InputError, match="no single stack of layers"):
        keep_layers(t5, 1, "t5")


@pytest.mark.parametrize("layers", [[], [1, 1], [2, 0], 0, [-1]])
def test_numbers_of_layers_rise(layers: Any) -> None:
    with pytest.raises(ValueError, match="layers"):
        ModelSettings.model_validate({"pretrained": "x", "layers": layers})
