"""[model.options]: keys of the configuration of pretrained weights that a job changes."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

from cache.errors import InputError
from student.models.build import build_model, load_student
from student.models.settings import ModelSettings
from student.training.export import save_student
from tests.student.models.test_models import VOCAB
from tests.student.training.test_export import logits_of, random_model, weights_of

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_model)  # type: ignore[no-any-return]


def build(folder: Path, tokenizer: PreTrainedTokenizerBase, name: str = "plain", **options: Any) -> Any:
    if not folder.exists():
        random_model(name).save_pretrained(folder)
    settings = ModelSettings.model_validate({"pretrained": str(folder), "options": options})
    return build_model(settings, VOCAB, tokenizer, 0)


def with_theta(folder: Path) -> None:
    """Another theta than the default one, which a lost one would become."""
    model = random_model("plain")
    model.config.rope_parameters = {"rope_type": "default", "rope_theta": 1e6}
    model.save_pretrained(folder)


@pytest.mark.parametrize("key", ["rope_parameters", "rope_scaling"])
def test_positions_are_scaled_and_saved_so(key: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    """By the present name and the one before. Would catch an option that only becomes an attribute."""
    with_theta(tmp_path / "base")
    plain, scaled = build(tmp_path / "base", tokenizer), build(tmp_path / "base", tokenizer, **{key: YARN})
    assert (logits_of(plain) - logits_of(scaled)).abs().max() > 1e-3
    assert all(torch.equal(one, other) for one, other in zip(plain.parameters(), scaled.parameters(), strict=True))
    save_student(scaled, weights_of(scaled), tokenizer, "card", tmp_path / "model")
    saved = json.loads((tmp_path / "model" / "config.json").read_text())
    assert saved["rope_parameters"] == {**YARN, "rope_theta": 1e6}
    assert torch.equal(logits_of(load_student(str(tmp_path / "model"), VOCAB)), logits_of(scaled))


def test_theta_alone_is_changed(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    with_theta(tmp_path / "base")
    plain, changed = build(tmp_path / "base", tokenizer), build(tmp_path / "base", tokenizer, rope_theta=5e5)
    assert changed.config.rope_parameters == {"rope_type": "default", "rope_theta": 5e5}
    assert (logits_of(plain) - logits_of(changed)).abs().max() > 1e-4


def test_windows_reach_the_layers(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    """Kinds of layers are derived from the window when a configuration is made. Would catch those of the old one."""
    config = Qwen2Config(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, num_attention_heads=2)
    config.num_key_value_heads, config.intermediate_size = 2, 48
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).save_pretrained(tmp_path / "base")
    window = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}
    changed = build(tmp_path / "base", tokenizer, **window)
    assert changed.config.layer_types == ["sliding_attention"] * 2
    assert (logits_of(build(tmp_path / "base", tokenizer)) - logits_of(changed)).abs().max() > 1e-5


@pytest.mark.parametrize("options", [{"n_layer": 4}, {"n_layer": 1}])
def test_other_names_of_a_key_are_known(
    options: dict[str, Any], tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"model\.options\.n_layer: use model\.layers"):
        build(tmp_path / "base", tokenizer, "gpt2", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rope_typo": 1}, r"model\.options\.rope_typo: a configuration of model_type 'llama' has no such key"),
        ({"vocab_size": 99}, r"model\.options\.vocab_size: the weights and the targets determine it"),
        ({"num_hidden_layers": 1}, r"model\.options\.num_hidden_layers: use model\.layers"),
        ({"dtype": "float16"}, r"model\.options\.dtype: use run\.precision"),
        ({"hidden_size": "wide"}, r"model\.options: the configuration of .* refuses them"),
        ({"intermediate_size": 8}, r"model .*: cannot be loaded: .*size"),
        ({"tie_word_embeddings": True}, r"model\.options\.tie_word_embeddings: the weights determine it"),
        ({"attention_bias": True}, r"model\.options: .* has other weights than a model with them; the first is"),
    ],
)
def test_what_cannot_be_changed_is_named(
    options: dict[str, Any], message: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as refused:
        build(tmp_path / "base", tokenizer, **options)
    assert re.search(message, str(refused.value)), refused.value


def test_a_new_student_has_no_options() -> None:
    settings = ModelSettings.model_validate({"config": {"model_type": "llama"}, "options": {"rms_norm_eps": 1e-5}})
    assert "options" in settings.unused_keys()
    dropped = ModelSettings.model_validate({"pretrained": "x", "options": {"attention_dropout": 0.1}})
    assert "options.attention_dropout" in dropped.unused_keys()
