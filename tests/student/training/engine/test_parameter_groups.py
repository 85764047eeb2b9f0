"""Which weights of real architectures decay."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from student.training.engine.parameter_groups import parameter_groups

SMALL: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 40}
MODELS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "llama": ({"intermediate_size": 16}, set()),
    "qwen2": ({"intermediate_size": 16, "num_key_value_heads": 2}, set()),
    "gpt2": ({"n_embd": 16, "n_layer": 1, "n_head": 2}, set()),
    "cohere": ({"intermediate_size": 16, "use_qk_norm": True, "num_key_value_heads": 2, "logit_scale": 0.1}, set()),
    "gpt_oss": (
        {"intermediate_size": 16, "num_local_experts": 2, "head_dim": 8, "num_key_value_heads": 2},
        set(),
    ),
    "mamba": ({"state_size": 4}, {"A_log"}),
    "t5": ({"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}, {"relative_attention_bias"}),
}


@pytest.mark.parametrize("name", list(MODELS))
def test_norms_and_biases_do_not_decay(name: str) -> None:
    """By the modules themselves, not by their names. Would catch norms and biases of two dimensions."""
    fields, exceptions = MODELS[name]
    config = AutoConfig.for_model(name, **SMALL | fields)
    kind = AutoModelForSeq2SeqLM if name == "t5" else AutoModelForCausalLM
    with torch.device("meta"):
        model = kind.from_config(config)
    decaying, others = (group["params"] for group in parameter_groups(model, 0.1))
    names = {id(parameter): each for each, parameter in model.named_parameters()}
    assert len(decaying) + len(others) == len(names)
    without_decay = {names[id(parameter)] for parameter in others}
    for path, module in model.named_modules():
        for own, parameter in module.named_parameters(recurse=False):
            is_norm = "Norm" in type(module).__name__
            is_exception = any(each in f"{path}.{own}" for each in exceptions)
            expected = is_norm or own.endswith("bias") or parameter.dim() < 2 or is_exception
            assert (f"{path}.{own}" in without_decay) == expected, (path, own)
    assert any("emb" in names[id(each)] or "shared" in names[id(each)] or "wte" in names[id(each)] for each in decaying)


def test_frozen_weights_are_in_no_group() -> None:
    """Adapters alone are trained, and are matrices."""
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["0"]), model)
    model[1].requires_grad_(False)
    (group,) = parameter_groups(model, 0.1)
    assert len(group["params"]) == 2 and group["weight_decay"] == 0.1


def test_a_model_without_trained_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="no parameter"):
        parameter_groups(nn.Linear(2, 2).requires_grad_(False), 0.1)
