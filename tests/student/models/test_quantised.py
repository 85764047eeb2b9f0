"""Students with frozen weights in 4 bits: what they compute, what is saved, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoTokenizer, MixtralConfig, MixtralForCausalLM, PreTrainedTokenizerBase

from cache.errors import InputError
from student.models.build import build_model, load_student
from student.models.quantised import plain_weight, weight_count
from student.models.settings import ModelSettings
from student.training.engine.frozen_weights import frozen_checksum
from student.training.export import require_savable, save_student
from tests.student.models.test_models import VOCAB
from tests.student.training.test_export import logits_of, random_model

pytest.importorskip("bitsandbytes")


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_model)  # type: ignore[no-any-return]


def build(folder: Path, name: str, tokenizer: PreTrainedTokenizerBase, **lora: Any) -> Any:
    """A model of a family, saved and loaded in 4 bits, with adapters that are not zero."""
    random_model(name).save_pretrained(folder)
    settings = {"pretrained": str(folder), "lora": {"rank": 3, "alpha": 5, "quantise": "nf4", **lora}}
    model = build_model(ModelSettings.model_validate(settings), VOCAB, tokenizer, 0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def in_4_bits(model: Any) -> list[str]:
    return [name for name, parameter in model.named_parameters() if hasattr(parameter, "quant_state")]


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("name", ["plain", "tied embeddings", "t5, tied"])
def test_the_saved_student_is_the_one_that_was_trained(
    name: str, dora: bool, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """Would catch adapters that are merged into other base weights, and a folder that needs bitsandbytes."""
    model = build(tmp_path / "base", name, tokenizer, dora=dora)
    assert len(in_4_bits(model)) >= 8 and not any("lm_head" in key for key in in_4_bits(model))
    require_savable(model, tokenizer)
    weights = {key: plain_weight(parameter).float() for key, parameter in model.named_parameters()}
    save_student(model, weights, tokenizer, "card", tmp_path / "model", base=str(tmp_path / "base"))
    assert "quantization_config" not in json.loads((tmp_path / "model" / "config.json").read_text())
    loaded = load_student(str(tmp_path / "model"), VOCAB)
    assert torch.allclose(logits_of(loaded), logits_of(model.eval()), atol=2e-3)
    assert (logits_of(load_student(str(tmp_path / "base"), VOCAB)) - logits_of(model)).abs().max() > 0.05


def test_weights_are_rounded_to_4_bits(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    """NormalFloat's largest gap is 0.28 of a block's maximum, so a weight is off by 0.14 of it at most; the scales are
    rounded too. Would catch weights of other layers or blocks.
    """
    model = build(tmp_path / "base", "plain", tokenizer)
    base = dict(load_student(str(tmp_path / "base"), VOCAB).named_parameters())
    for name in in_4_bits(model):
        parameter, original = model.get_parameter(name), base[name.replace(".base_layer", "")].detach()
        rounded = plain_weight(parameter)
        assert parameter.dtype == torch.uint8 and weight_count(parameter) == original.numel()
        assert rounded.shape == original.shape and rounded.unique().numel() > 16
        assert 0 < (rounded - original).abs().max() <= 0.15 * original.abs().max()
        assert torch.corrcoef(torch.stack([rounded.flatten(), original.flatten()]))[0, 1] > 0.98


def test_an_evaluation_leaves_the_weights(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    """bitsandbytes repacks and rounds weights of a model that is evaluated on some CPUs. Would catch that."""
    model = build(tmp_path / "base", "plain", tokenizer)
    checksum, in_training = frozen_checksum(model), logits_of(model.train())
    assert torch.equal(logits_of(model.eval()), in_training)
    assert frozen_checksum(model) == checksum
    assert torch.equal(logits_of(model.train()), in_training)


def test_it_computes_in_the_dtype_of_its_inputs(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    """A plan tests the model in float32; ranks that train in bfloat16 make their own. Would catch a fixed float32."""
    settings = {"pretrained": str(tmp_path), "lora": {"rank": 3, "quantise": "nf4"}}
    random_model("plain").save_pretrained(tmp_path)
    model = build_model(ModelSettings.model_validate(settings), VOCAB, tokenizer, 0, test_head=False)
    # As DeepSpeed does: not by model.to, which Transformers refuses.
    torch.nn.Module.bfloat16(torch.nn.ModuleDict({"model": model}))
    seen = []
    layer = model.get_submodule("model.layers.0.mlp.up_proj.base_layer")
    layer.register_forward_hook(lambda module, inputs, output: seen.append((module.compute_dtype, output.dtype)))
    logits_of(model)
    assert seen == [(torch.bfloat16, torch.bfloat16)]
    assert model.get_parameter(in_4_bits(model)[0]).dtype == torch.uint8


def test_layers_that_are_stored_transposed_are_refused(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.lora\.quantise: .* has layers that are stored transposed"):
        build(tmp_path / "base", "gpt2", tokenizer)


def test_a_missing_library_is_named(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("student.models.quantised.importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"model\.lora\.quantise needs bitsandbytes: pip install"):
        build(tmp_path / "base", "plain", tokenizer)


def test_experts_that_would_stay_in_full_size_are_refused(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    config = MixtralConfig(vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_local_experts=4)
    config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads = 1, 2, 2
    MixtralForCausalLM(config).save_pretrained(tmp_path)
    settings = {"pretrained": str(tmp_path), "lora": {"target_modules": ["q_proj"], "quantise": "nf4"}}
    with pytest.raises(InputError, match="in no linear layers, such as those of its experts"):
        build_model(ModelSettings.model_validate(settings), VOCAB, tokenizer, 0)


def test_layers_cannot_be_chosen_too() -> None:
    settings = {"pretrained": "x", "layers": 2, "lora": {"quantise": "nf4"}}
    with pytest.raises(ValidationError, match=r"'layers' and 'lora\.quantise' cannot be combined"):
        ModelSettings.model_validate(settings)
