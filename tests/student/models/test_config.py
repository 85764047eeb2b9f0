"""A new student from [model.config]: complete for its tokenizer and trainable, or refused in one line."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerBase

from cache.errors import InputError
from cache.examples.example import Example
from student.data.batches import LanguageBatches
from student.data.settings import DataSettings
from student.data.sources import FileSource
from student.losses.settings import LossSettings
from student.losses.target_forms import TargetForm
from student.losses.weighted_objectives import WeightedObjectives
from student.models.build import build_model
from student.models.config import new_config
from student.models.loss_model import LossModel
from student.models.model_parts import layout_of
from student.models.settings import ModelSettings
from student.tokenizers.bpe import learn_tokenizer

EXAMPLES = [
    Example(str(i), ({"role": "user", "content": f"What is {i} plus {i + 1}?"},), response=f"It is {2 * i + 1}.")
    for i in range(8)
]
LOSS = LossSettings(objective="hard_label")
DECODER = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
}
GPT = {"n_embd": 32, "n_layer": 1, "n_head": 4}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4}
BART = {
    "d_model": 32,
    **{f"{part}_layers": 1 for part in ("encoder", "decoder")},
    **{f"{part}_attention_heads": 4 for part in ("encoder", "decoder")},
    **{f"{part}_ffn_dim": 64 for part in ("encoder", "decoder")},
}
TYPES: dict[str, dict[str, Any]] = {
    "llama": DECODER,
    "qwen2": DECODER,
    "qwen3": DECODER | {"head_dim": 8},
    "mistral": DECODER,
    "gemma": DECODER | {"head_dim": 8},
    "gemma2": DECODER | {"head_dim": 8},
    "gemma3_text": DECODER | {"head_dim": 8},
    "mixtral": DECODER | {"num_local_experts": 2},
    "gpt2": GPT,
    "gptj": GPT | {"rotary_dim": 4},
    "gpt_neox": {name: DECODER[name] for name in DECODER if name != "num_key_value_heads"},
    "opt": {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "ffn_dim": 64,
        "word_embed_proj_dim": 32,
    },
    "t5": T5,
    "mt5": T5,
    "bart": BART,
    "mbart": BART,
    "pegasus": BART,
    "marian": BART,
    "m2m_100": BART,
}
ENCODER_DECODERS = ("t5", "mt5", "bart", "mbart", "pegasus", "marian", "m2m_100")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return learn_tokenizer(EXAMPLES, 320)


@pytest.fixture(scope="module")
def chat_tokenizer() -> PreTrainedTokenizerBase:
    """One that pads with the token that ends a turn, as many chat models do."""
    tokenizer = learn_tokenizer(EXAMPLES, 320)
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def build(tokenizer: PreTrainedTokenizerBase, **config: Any) -> Any:
    return build_model(ModelSettings(config=config), len(tokenizer), tokenizer, 0)


def refusal(tokenizer: PreTrainedTokenizerBase, **config: Any) -> str:
    with pytest.raises(InputError) as error:
        build(tokenizer, **config)
    assert "\n" not in str(error.value)
    return str(error.value)


def losses(model: Any, tokenizer: PreTrainedTokenizerBase, steps: int) -> list[float]:
    source = FileSource(EXAMPLES, tokenizer, DataSettings.model_validate({"examples": "e.jsonl"}), LOSS)
    objectives = WeightedObjectives.of(LOSS, TargetForm("none"))
    batch = LanguageBatches(source, objectives, layout_of(model, None), None).batch(list(range(8)))
    student = LossModel(model.train(), objectives)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    values = []
    for _ in range(steps):
        objective = student(batch, torch.full((1,), 1 / float(batch.weights.sum()))).objective
        optimizer.zero_grad()
        objective.backward()
        optimizer.step()
        values.append(float(objective))
    return values


@pytest.mark.parametrize("padding", ["own", "eos"])
@pytest.mark.parametrize("model_type", TYPES)
def test_every_type_trains_with_the_special_tokens_of_its_tokenizer(
    model_type: str, padding: str, tokenizer: PreTrainedTokenizerBase, chat_tokenizer: PreTrainedTokenizerBase
) -> None:
    own = tokenizer if padding == "own" else chat_tokenizer
    model = build(own, model_type=model_type, **TYPES[model_type])
    values = losses(model, own, 3)
    assert np.isfinite(values).all() and values[2] < values[0]
    for config in (model.config, model.generation_config):
        assert [config.bos_token_id, config.eos_token_id, config.pad_token_id] == [
            own.bos_token_id,
            own.eos_token_id,
            own.pad_token_id,
        ]
        if model_type in ENCODER_DECODERS:
            assert config.decoder_start_token_id == own.pad_token_id
    assert getattr(model.generation_config, "forced_eos_token_id", None) in (None, own.eos_token_id)
    assert getattr(model.generation_config, "forced_bos_token_id", None) is None


@pytest.mark.parametrize("model_type", ["llama", "bart"])
def test_a_padding_token_with_a_meaning_is_learned(model_type: str, chat_tokenizer: PreTrainedTokenizerBase) -> None:
    """Would catch the embedding of eos that stays zero: the layer of embeddings has no gradient for padding."""
    model = build(chat_tokenizer, model_type=model_type, **TYPES[model_type])
    embeddings = model.get_input_embeddings()
    eos = chat_tokenizer.eos_token_id
    assert embeddings.padding_idx is None and float(embeddings.weight[eos].detach().abs().sum()) > 0


def test_given_special_tokens_are_kept_and_checked(tokenizer: PreTrainedTokenizerBase) -> None:
    model = build(tokenizer, model_type="t5", **T5, decoder_start_token_id=7, eos_token_id=9)
    assert (model.config.decoder_start_token_id, model.config.eos_token_id) == (7, 9)
    for value in (320, -1, "end", True):
        message = refusal(tokenizer, model_type="t5", **T5, decoder_start_token_id=value)
        assert message.startswith(f"model.config.decoder_start_token_id = {value!r}: must be an id")


def test_a_first_token_of_the_decoder_is_found_or_asked_for() -> None:
    tokenizer = learn_tokenizer(EXAMPLES, 320)
    tokenizer.pad_token = None
    assert build(tokenizer, model_type="t5", **T5).config.decoder_start_token_id == tokenizer.bos_token_id
    tokenizer.bos_token = None
    assert "model.config.decoder_start_token_id: the tokenizer has neither" in refusal(tokenizer, model_type="t5", **T5)


@pytest.mark.parametrize(
    "config, expected",
    [
        (
            {"model_type": "llama", "hidden_sise": 64},
            "model.config.hidden_sise: .* no such key; did you mean hidden_size",
        ),
        ({"model_type": "gpt2", "n_embed": 64}, "model.config.n_embed: .*did you mean n_embd"),
        ({"model_type": "t5", "num_decoder_layer": 1}, "did you mean num_decoder_layers"),
        ({"model_type": "llama", "temperature": 0.5}, "model.config.temperature: .* no such key"),
        (
            {"model_type": "gemma3", "text_config": {"hidden_sise": 8}},
            r"model.config.text_config.hidden_sise: .*hidden_size",
        ),
        ({"model_type": "llma"}, "model.config.model_type = 'llma' is unknown to Transformers; did you mean llama"),
        ({"model_type": "vit"}, "model.config.model_type = 'vit': .* no model of this type that can be a student"),
        ({"model_type": "llama", **DECODER, "num_attention_heads": 5}, "'llama' cannot be built from it: "),
        (
            {"model_type": "electra", "is_decoder": True, "hidden_size": 32, "num_attention_heads": 4},
            "its forward pass fails",
        ),
    ],
)
def test_what_cannot_be_built_is_named(
    config: dict[str, Any], expected: str, tokenizer: PreTrainedTokenizerBase
) -> None:

    message = refusal(tokenizer, **config)
    assert re.search(expected, message), message
    assert len(message) < 400


@pytest.mark.parametrize(
    "config",
    [
        {**DECODER, "rope_theta": 5000.0},
        {**DECODER, "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
        {**DECODER, "attn_implementation": "eager"},
        {**DECODER, "architectures": ["LlamaForCausalLM"], "transformers_version": "5.0.0"},
    ],
)
def test_keys_of_published_configurations_are_accepted(
    config: dict[str, Any], tokenizer: PreTrainedTokenizerBase
) -> None:
    build(tokenizer, model_type="llama", **config)


def test_a_key_that_only_the_code_of_the_model_reads_is_no_mistake() -> None:
    """Qwen3's mixtures take head_dim from a configuration whose class does not name it."""
    fields = {"model_type": "qwen3_moe", "hidden_size": 32, "num_attention_heads": 2, "head_dim": 8}
    assert new_config(fields, 300, learn_tokenizer(EXAMPLES, 300)).head_dim == 8
    with pytest.raises(InputError, match=r"head_dims: .* has no such key"):
        new_config(fields | {"head_dims": 8}, 300, learn_tokenizer(EXAMPLES, 300))
