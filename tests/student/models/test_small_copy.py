"""A plan of a large model reads no weights, and judges a small copy as it would judge the model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoTokenizer,
    BambaConfig,
    FalconMambaConfig,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MixtralConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen3Config,
    T5Config,
)

from cache.errors import InputError
from student.models import small_copy as room
from student.models.build import build_model, build_structure, require_working_head
from student.models.registry import kind_of
from student.models.rows.packing_probe import refuse_unpackable
from student.models.settings import ModelSettings
from student.models.small_copy import model_to_plan, small_copy

VOCAB = 900
SIZES: dict[str, Any] = {"vocab_size": VOCAB, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 9}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2, "eos_token_id": 890, "pad_token_id": 891}
STATE = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1, "attn_layer_indices": [4]}
CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaConfig(**SIZES),
    "qwen3": lambda: Qwen3Config(**SIZES, head_dim=16),
    "gemma3_text": lambda: Gemma3TextConfig(**SIZES, head_dim=16, sliding_window=4, bos_token_id=889),
    "gpt2": lambda: GPT2Config(vocab_size=VOCAB, n_embd=64, n_layer=9, n_head=4, bos_token_id=889, eos_token_id=890),
    "mixtral": lambda: MixtralConfig(**SIZES, num_local_experts=4),
    "falcon_mamba": lambda: FalconMambaConfig(
        vocab_size=VOCAB, hidden_size=64, num_hidden_layers=9, state_size=8, pad_token_id=0
    ),
    "bamba": lambda: BambaConfig(**SIZES, **STATE),
    "t5": lambda: T5Config(
        vocab_size=VOCAB, d_model=64, d_kv=16, d_ff=96, num_layers=9, num_heads=4, decoder_start_token_id=0
    ),
}


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_model)  # type: ignore[no-any-return]


def make(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    config = CONFIGS[name]()
    model: PreTrainedModel = kind_of(config).auto_class().from_config(config, dtype=torch.float32)
    return model.eval()


def verdict(model: PreTrainedModel) -> str:
    try:
        refuse_unpackable(model, 2, 64)
    except InputError as error:
        return str(error).split("(")[0]
    return "packs"


@pytest.mark.parametrize("name", CONFIGS)
def test_a_copy_is_small_and_judged_as_its_model(name: str) -> None:
    model, state = make(name), torch.get_rng_state()
    small = small_copy(model)
    assert small is not None and torch.equal(state, torch.get_rng_state())
    count, small_count = (sum(each.numel() for each in one.parameters()) for one in (model, small))
    assert small_count < 0.75 * count
    assert small.config.get_text_config().vocab_size == 512
    require_working_head(small, name)
    if not model.config.is_encoder_decoder:
        assert verdict(small) == verdict(model)
    kinds = getattr(model.config, "layer_types", None) or []
    assert set(kinds) == set(getattr(small.config, "layer_types", None) or [])


def test_copies_of_both_verdicts_were_compared() -> None:
    """Would catch a comparison of models that all pack."""
    verdicts = {verdict(make(name)) for name in ("llama", "falcon_mamba")}
    assert "packs" in verdicts and len(verdicts) == 2


@pytest.mark.parametrize(
    "fields", [{}, {"lora": {"rank": 4}}, {"layers": 3}, {"lora": {"rank": 4, "dora": True}}], ids=str
)
def test_a_structure_is_the_model_without_weights(
    fields: dict[str, Any], tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    make("llama").save_pretrained(tmp_path)
    settings = ModelSettings.model_validate({"pretrained": str(tmp_path), **fields})
    whole, structure = (each(settings, VOCAB + 20, tokenizer, 0) for each in (build_model, build_structure))
    shapes = [
        [(key, each.shape, each.requires_grad) for key, each in one.named_parameters()] for one in (whole, structure)
    ]
    assert shapes[0] == shapes[1] and all(each.is_meta for each in structure.parameters())
    buffers = [[(key, each.shape, each.dtype) for key, each in one.named_buffers()] for one in (whole, structure)]
    assert buffers[0] == buffers[1] != []
    assert whole.config.to_dict() == {**structure.config.to_dict(), "dtype": whole.config.to_dict()["dtype"]}


def test_a_large_model_is_planned_without_its_weights(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("llama").save_pretrained(tmp_path)
    for path in tmp_path.glob("*.safetensors"):
        path.unlink()
    settings = ModelSettings(pretrained=str(tmp_path))
    with pytest.raises(InputError, match="cannot be loaded"):
        model_to_plan(settings, VOCAB, tokenizer, 0)
    monkeypatch.setattr(room, "LARGE", 100_000)
    model, small = model_to_plan(settings, VOCAB, tokenizer, 0)
    assert all(each.is_meta for each in model.parameters())
    assert small is not model and small.config.num_hidden_layers == 2 and not next(small.parameters()).is_meta
    assert model_to_plan(settings, VOCAB + 1, tokenizer, 0)[0].config.vocab_size == VOCAB + 1


def test_a_large_model_with_other_logits_is_refused(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch a small copy that is never run."""
    make("llama").save_pretrained(tmp_path)
    monkeypatch.setattr(room, "LARGE", 100_000)
    forward = type(make("llama")).forward

    def doubled(*args: Any, **options: Any) -> Any:
        given = forward(*args, **options)
        given.logits = given.logits * 1.01
        return given

    monkeypatch.setattr(type(make("llama")), "forward", doubled)
    with pytest.raises(InputError, match="computes its logits in an unknown way"):
        model_to_plan(ModelSettings(pretrained=str(tmp_path)), VOCAB, tokenizer, 0)


def test_a_model_that_cannot_be_small_is_planned_whole(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("llama").save_pretrained(tmp_path)
    monkeypatch.setattr(room, "LARGE", 100_000)
    monkeypatch.setattr(room, "_cut_layers", lambda text: setattr(text, "num_attention_heads", "many"))
    model, tested = model_to_plan(ModelSettings(pretrained=str(tmp_path)), VOCAB, tokenizer, 0)
    assert tested is model and not next(model.parameters()).is_meta
