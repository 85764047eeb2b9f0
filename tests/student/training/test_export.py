"""The saved student is the trained one: in Hugging Face form, adapters merged, written atomically."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoTokenizer, DeepseekV3Config, PreTrainedTokenizerBase, Qwen2Tokenizer

from cache.errors import InputError
from cache.examples.tokenizers import load_tokenizer, tokenizer_digest
from student.models.build import add_adapters, build_model, load_student
from student.models.registry import kind_of
from student.models.settings import LoraSettings, ModelSettings
from student.training.export import require_savable, save_student
from tests.student.models.test_models import FAMILIES, VOCAB

# Has a buffer that is learned otherwise than by gradients, and saved.
DEEPSEEK = DeepseekV3Config(
    vocab_size=VOCAB,
    hidden_size=32,
    intermediate_size=48,
    moe_intermediate_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
    n_routed_experts=4,
    num_experts_per_tok=2,
    n_group=1,
    topk_group=1,
    first_k_dense_replace=1,
    q_lora_rank=16,
    kv_lora_rank=16,
    qk_rope_head_dim=8,
    qk_nope_head_dim=8,
    v_head_dim=8,
    initializer_range=0.1,
)
KINDS: dict[str, Callable[[], Any]] = {**FAMILIES, "deepseek, with a buffer": lambda: DEEPSEEK}


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_model)  # type: ignore[no-any-return]


def random_model(name: str, targets: tuple[str, ...] | str = ()) -> Any:
    torch.manual_seed(0)
    config = KINDS[name]()
    model = kind_of(config).auto_class().from_config(config, dtype=torch.float32).eval()
    if targets:
        add_adapters(model, LoraSettings(rank=3, alpha=5, target_modules=targets), name)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.randn_like(tensor), alpha=0.1)
    return model


def weights_of(model: Any) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def logits_of(model: Any) -> Tensor:
    ids = torch.arange(40).reshape(2, 20) * 7 % VOCAB
    inputs = {"input_ids": ids} | ({"decoder_input_ids": ids[:, :9]} if model.config.is_encoder_decoder else {})
    with torch.no_grad():
        logits: Tensor = model(**inputs).logits
    return logits


@pytest.mark.parametrize("name", list(KINDS))
def test_a_saved_student_gives_the_same_logits(name: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    """Would catch a weight that stays random, a buffer that is lost, and a tie that is cut or made."""
    model = random_model(name)
    save_student(model, weights_of(model), tokenizer, "card", tmp_path / "model")
    loaded = load_student(str(tmp_path / "model"), VOCAB)
    assert torch.equal(logits_of(loaded), logits_of(model))
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert (loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight) == tied
    with safe_open(tmp_path / "model" / "model.safetensors", "pt") as file:
        assert ("lm_head.weight" in file.keys()) == (not tied)  # noqa: SIM118
    assert (tmp_path / "model" / "README.md").read_text() == "card"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("name", list(KINDS))
def test_a_student_reloads_with_its_tokenizer_or_is_refused(
    name: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """Transformers takes any tokenizer beside a Qwen2 model for Qwen2's. Would catch a student that reads other ids."""
    model = random_model(name)
    if name == "qwen2":
        with pytest.raises(InputError, match=r"'qwen2': .* as Qwen2Tokenizer, which gives other ids"):
            require_savable(model, tokenizer)
        return
    require_savable(model, tokenizer)
    save_student(model, weights_of(model), tokenizer, "card", tmp_path / "model")
    reloaded = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer_digest(reloaded) == tokenizer_digest(tokenizer)


def test_a_model_keeps_a_tokenizer_of_its_own_family(tmp_path: Path) -> None:
    """Would catch a refusal of every Qwen2 student."""
    letters = {letter: number for number, letter in enumerate("abcdefghij")}
    tokenizer = Qwen2Tokenizer(vocab=letters, merges=[])
    model = random_model("qwen2")
    require_savable(model, tokenizer)
    save_student(model, weights_of(model), tokenizer, "card", tmp_path / "model")
    assert tokenizer_digest(AutoTokenizer.from_pretrained(tmp_path / "model")) == tokenizer_digest(tokenizer)


@pytest.mark.parametrize("name", ["plain", "tied embeddings", "t5, tied", "deepseek, with a buffer"])
def test_a_student_is_saved_in_the_dtype_it_was_trained_in(
    name: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """Would catch a folder of twice the size, and weights that are not the rounded float32 originals."""
    model = random_model(name)
    weights = weights_of(model)
    save_student(model, weights, tokenizer, "card", tmp_path / "model", torch.bfloat16)
    assert json.loads((tmp_path / "model" / "config.json").read_text())["dtype"] == "bfloat16"
    with safe_open(tmp_path / "model" / "model.safetensors", "pt") as file:
        dtypes = {key: file.get_tensor(key).dtype for key in file.keys()}  # noqa: SIM118
    buffers = {key for key, _ in model.named_buffers()}
    assert {dtype for key, dtype in dtypes.items() if key not in buffers} == {torch.bfloat16}
    loaded = kind_of(model.config).auto_class().from_pretrained(tmp_path / "model", dtype="auto")
    assert loaded.dtype == torch.bfloat16
    for key, parameter in loaded.named_parameters():
        assert torch.equal(parameter, weights[key].bfloat16()), key


@pytest.mark.parametrize(
    "name, targets",
    [
        ("plain", "all-linear"),
        ("plain", ("q_proj", "lm_head")),
        ("tied embeddings", "all-linear"),
        ("gpt2", "all-linear"),
        ("gpt2", ("c_attn",)),
        ("t5, tied", "all-linear"),
        ("scaled logits", ("v_proj",)),
    ],
)
def test_merged_adapters_give_the_adapted_models_logits(
    name: str, targets: Any, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """Would catch a delta that is lost, transposed or scaled wrongly, and a folder that needs PEFT."""
    model = random_model(name, targets)
    save_student(model, weights_of(model), tokenizer, "card", tmp_path / "model")
    loaded = load_student(str(tmp_path / "model"), VOCAB)
    assert not any("lora" in key for key in loaded.state_dict())
    assert torch.allclose(logits_of(loaded), logits_of(model), atol=2e-3)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                parameter.zero_()
    assert (logits_of(loaded) - logits_of(model)).abs().max() > 0.05, "adapters that change nothing"


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("name", ["plain", "gpt2", "t5, tied"])
def test_adapters_are_saved_beside_the_merged_student(
    name: str, dora: bool, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """With PEFT on the base they give the same logits. Would catch names that PEFT does not find, which it ignores."""
    from peft import PeftModel

    base = random_model(name)
    base.save_pretrained(tmp_path / "base")
    model = load_student(str(tmp_path / "base"), VOCAB)
    add_adapters(model, LoraSettings(rank=3, alpha=5, dora=dora), name)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    save_student(model, weights_of(model), tokenizer, "card", tmp_path / "model", base=str(tmp_path / "base"))
    plain = load_student(str(tmp_path / "base"), VOCAB)
    assert (logits_of(plain) - logits_of(model)).abs().max() > 0.05
    adapted = PeftModel.from_pretrained(plain, str(tmp_path / "model" / "adapter"))
    assert torch.allclose(logits_of(adapted), logits_of(model), atol=1e-4)
    assert torch.allclose(logits_of(load_student(str(tmp_path / "model"), VOCAB)), logits_of(model), atol=2e-3)


def test_a_student_replaces_the_one_before(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    """Also one whose writing was interrupted. Would catch files of two students in one folder."""
    for folder in ("model", ".model.tmp"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "stale").write_text("")
    model = random_model("plain")
    save_student(model, weights_of(model), tokenizer, "card", tmp_path / "model")
    assert not (tmp_path / "model" / "stale").exists() and not (tmp_path / ".model.tmp").exists()


@pytest.mark.parametrize("change", ["missing", "unknown"])
def test_weights_that_do_not_fit_are_refused(change: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    """Would catch a student saved with random weights in a layer."""
    model = random_model("plain")
    weights = weights_of(model)
    if change == "missing":
        weights.pop("model.layers.1.mlp.up_proj.weight")
    else:
        weights["model.layers.2.mlp.up_proj.weight"] = torch.zeros(1)
    with pytest.raises(RuntimeError, match=r"weights do not fit llama: .*layers\.[12]\.mlp\.up_proj"):
        save_student(model, weights, tokenizer, "card", tmp_path / "model")
    assert not (tmp_path / "model").exists()


CODE = """
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

class OwnConfig(LlamaConfig):
    model_type = "own_llama"

class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig

class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""


def test_a_student_with_code_of_its_own_is_saved_with_it(tiny_model: Path, tmp_path: Path) -> None:
    """Where a job allows that code. Would catch a run that fails when its student is saved, and a folder without it."""
    base = tmp_path / "base"
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(str(base))
    random_model("plain").save_pretrained(base)
    (base / "own.py").write_text(CODE)
    names = {
        "config.json": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"},
        "tokenizer_config.json": {"AutoTokenizer": [None, "own.OwnTokenizer"]},
    }
    for name, auto_map in names.items():
        content = json.loads((base / name).read_text()) | {"auto_map": auto_map}
        if name == "config.json":
            content["model_type"] = "own_llama"
        (base / name).write_text(json.dumps(content))
    tokenizer = load_tokenizer(base, trust_remote_code=True)
    settings = ModelSettings(pretrained=str(base), trust_remote_code=True)
    model = build_model(settings, VOCAB, tokenizer, 0)
    assert type(model).__name__ == "OwnModel" and type(tokenizer).__name__ == "OwnTokenizer"
    require_savable(model, tokenizer, trust_remote_code=True)
    save_student(model, weights_of(model), tokenizer, "card", tmp_path / "model")
    loaded = load_student(str(tmp_path / "model"), VOCAB, trust_remote_code=True)
    assert type(loaded).__name__ == "OwnModel"
    assert torch.equal(logits_of(loaded), logits_of(model))
    reloaded = load_tokenizer(tmp_path / "model", trust_remote_code=True)
    assert tokenizer_digest(reloaded) == tokenizer_digest(tokenizer)
