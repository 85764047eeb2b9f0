"""Small random models of several families, in Hugging Face form."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
    PreTrainedConfig,
)

# Wide enough to draw logits that differ by several nats.
SIZES: dict[str, Any] = {
    "vocab_size": 325,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 1024,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
    "initializer_range": 0.1,
}
CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "plain": lambda: LlamaConfig(**SIZES),
    "tied embeddings": lambda: LlamaConfig(**SIZES, tie_word_embeddings=True),
    "gpt2": lambda: GPT2Config(
        vocab_size=325, n_embd=64, n_layer=2, n_head=2, n_positions=256, bos_token_id=0, eos_token_id=1
    ),
    # Caps at 2: every large logit is bent.
    "capped logits": lambda: Gemma2Config(
        **SIZES, head_dim=32, query_pre_attn_scalar=32, sliding_window=32, final_logit_softcapping=2.0
    ),
    "scaled logits": lambda: CohereConfig(**SIZES, logit_scale=0.25),
    "divided logits": lambda: GraniteConfig(**SIZES, logits_scaling=4.0),
}


def save_model(name: str, folder: Path, tokenizer: Any) -> Path:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(CONFIGS[name]()).save_pretrained(folder)
    tokenizer.save_pretrained(str(folder))
    return folder


def quantise(folder: Path) -> None:
    """Linear layers to 8-bit integers with a scale a row, in the form of compressed-tensors (W8A8)."""
    weights = load_file(folder / "model.safetensors")
    for name, weight in list(weights.items()):
        if name.endswith("_proj.weight"):
            scale = weight.abs().amax(1, keepdim=True) / 127
            weights[name] = (weight / scale).round().to(torch.int8)
            weights[name.replace("weight", "weight_scale")] = scale
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    number = {"num_bits": 8, "type": "int", "symmetric": True}
    group = {
        "targets": ["Linear"],
        "weights": {**number, "strategy": "channel", "dynamic": False},
        "input_activations": {**number, "strategy": "token", "dynamic": True},
    }
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
    }
    (folder / "config.json").write_text(json.dumps(config))
