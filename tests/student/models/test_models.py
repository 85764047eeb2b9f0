"""Students of several families: known heads, adapters, checkpointed activations, padded vocabularies."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase, Qwen2Config, T5Config

import student.models.loss_model
from cache.errors import InputError
from student.data.collate import collate
from student.losses.batch import Batch
from student.losses.head.fused_loss import loss_of_logits
from student.losses.loss_terms import make_loss_terms
from student.losses.settings import LossSettings
from student.losses.target_forms import TargetForm
from student.losses.weighted_objectives import WeightedObjectives
from student.models.build import add_adapters, build_model, load_student, router_note
from student.models.kinds.encoder_decoder import EncoderDecoderLayout
from student.models.loss_model import LossModel
from student.models.model_parts import is_one_matrix, layout_of, logits_width, require_known_head
from student.models.registry import kind_of
from student.models.settings import LoraSettings, ModelSettings
from student.training.export import merge_adapters
from tests.student.training.ranks import TOPK, make_record
from tests.teacher_serving.engines.models import CONFIGS, SIZES

T5 = {"d_model": 64, "d_kv": 32, "d_ff": 96, "num_layers": 2, "num_heads": 2, "vocab_size": 325}
T5 |= {"decoder_start_token_id": 2, "pad_token_id": 2, "eos_token_id": 1, "dropout_rate": 0.1}
FAMILIES: dict[str, Callable[[], Any]] = {
    **CONFIGS,
    "qwen2": lambda: Qwen2Config(**SIZES),
    "t5, tied": lambda: T5Config(**T5, tie_word_embeddings=True),
    "t5, untied": lambda: T5Config(**T5, tie_word_embeddings=False, feed_forward_proj="gated-gelu"),
}
EACH_FAMILY = pytest.mark.parametrize("name", list(FAMILIES))
VOCAB = 325
MIX = [
    {"objective": "forward_kl", "temperature": 2.0},
    {"objective": "jsd", "weight": 0.5},
    {"objective": "hard_label"},
]
OBJECTIVES = WeightedObjectives.of(LossSettings.model_validate({"terms": MIX}), TargetForm.of(TOPK))


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_model)  # type: ignore[no-any-return]


@pytest.fixture
def save(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> Callable[..., str]:
    """Leave a random model of a family in Hugging Face form, with every weight moved off what it starts from."""

    def make(name: str, **changes: Any) -> str:
        torch.manual_seed(0)
        config = FAMILIES[name]()
        for field, value in changes.items():
            setattr(config, field, value)
        model = kind_of(config).auto_class().from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.02)
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(str(tmp_path / name))
        return str(tmp_path / name)

    return make


def build(path: str, tokenizer: PreTrainedTokenizerBase, vocab_size: int = VOCAB, **fields: Any) -> Any:
    settings = ModelSettings.model_validate({"pretrained": path, **fields})
    return build_model(settings, vocab_size, tokenizer, seed=0)


def batch_for(model: Any) -> Batch:
    rng = np.random.default_rng(0)
    windows = [make_record(rng, str(i), *size, TOPK).window for i, size in enumerate([(4, 6), (6, 3), (3, 8)])]
    for window in windows:
        window.tokens[:] %= VOCAB
        window.targets.ids[:] = np.concatenate([rng.choice(VOCAB, n, replace=False) for n in window.targets.counts])
    return collate(windows, OBJECTIVES, layout_of(model, None))


def gradients(model: Any, total: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    total.backward()  # type: ignore[no-untyped-call]
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def dense(model: Any, batch: Batch) -> Tensor:
    """The loss from the logits that the model itself gives."""
    logits = model(**batch.inputs).logits.flatten(0, 1)[batch.rows]
    return loss_of_logits(logits, make_loss_terms(batch, OBJECTIVES, torch.ones(3)))[0]


def fused(model: Any, batch: Batch) -> Tensor:
    objective: Tensor = LossModel(model, OBJECTIVES)(batch, torch.ones(3)).objective
    return objective


def assert_same(ours: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert ours.keys() == wanted.keys()
    for name, gradient in ours.items():
        assert (gradient - wanted[name]).norm() <= 2e-4 * wanted[name].norm() + 1e-5, name


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(student.models.loss_model, "block_rows", lambda width, device: 7)


@EACH_FAMILY
def test_the_loss_and_all_gradients_are_those_of_the_models_own_logits(
    name: str, save: Callable[..., str], tokenizer: PreTrainedTokenizerBase, small_blocks: None
) -> None:
    """Would catch a cap, a scale or a bias that is missed, a tied weight counted once, and a decoder fed wrongly."""
    model = build(save(name), tokenizer)
    batch = batch_for(model)
    wanted = dense(model, batch)
    found = fused(model, batch)
    assert float(found.detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)
    assert_same(gradients(model, found), gradients(model, wanted))


@EACH_FAMILY
def test_a_configuration_builds_the_family(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """From random weights, the same for a seed, without dropout, wide enough for the store."""
    fields = {k: v for k, v in FAMILIES[name]().to_diff_dict().items() if k not in ("vocab_size", "dtype")}
    settings = ModelSettings.model_validate({"config": {"model_type": FAMILIES[name]().model_type, **fields}})
    one, same, other = (build_model(settings, 400, tokenizer, seed=seed) for seed in (1, 1, 2))
    assert logits_width(one) == 400
    states = [dict(model.named_parameters()) for model in (one, same, other)]
    assert all(torch.equal(weight, states[1][key]) for key, weight in states[0].items())
    assert not all(torch.equal(weight, states[2][key]) for key, weight in states[0].items())
    assert not any(isinstance(m, nn.Dropout) and m.p > 0 for m in one.modules())


class Doubled(LlamaForCausalLM):
    """Logits that are not hidden states times head."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        given = super().forward(*args, **kwargs)
        given.logits = given.logits * 1.01
        return given


def test_unknown_logits_are_refused() -> None:
    """Would catch a family whose training would minimise the loss of other logits than it will have."""
    torch.manual_seed(0)
    config = LlamaConfig(**SIZES)
    require_known_head(LlamaForCausalLM(config).eval(), "plain")
    with pytest.raises(InputError, match=r"model 'odd' of type 'llama' computes its logits in an unknown way"):
        require_known_head(Doubled(config).eval(), "odd")
    broken = LlamaForCausalLM(config).eval()
    nn.init.constant_(broken.model.norm.weight, torch.nan)
    with pytest.raises(InputError, match="differ by up to nan"):
        require_known_head(broken, "broken")
    headless = LlamaForCausalLM(config).eval()
    headless.set_output_embeddings(None)
    with pytest.raises(InputError, match="has no LM head"):
        require_known_head(headless.model, "headless")


@pytest.mark.parametrize("name", ["plain", "tied embeddings", "gpt2", "capped logits", "t5, tied"])
def test_adapters_learn_and_the_rest_is_frozen(
    name: str, save: Callable[..., str], tokenizer: PreTrainedTokenizerBase, small_blocks: None
) -> None:
    """Also in GPT-2's transposed layers. Would catch base weights that learn, and adapters that get no gradient."""
    model = build(save(name), tokenizer, lora={"rank": 3})
    assert is_one_matrix(model.get_output_embeddings()), "all-linear leaves the head out"
    learning = {n for n, p in model.named_parameters() if p.requires_grad}
    assert learning and all("lora_" in n for n in learning)
    with torch.no_grad():
        for n, p in model.named_parameters():
            if "lora_B" in n:  # 0 at the start, which hides A
                p.normal_(std=0.1)
    batch = batch_for(model)
    found = gradients(model, fused(model, batch))
    assert found.keys() == learning and all(gradient.any() for gradient in found.values())
    assert_same(found, gradients(model, dense(model, batch)))


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("name", ["plain", "gpt2", "capped logits", "t5, untied"])
def test_merged_adapters_are_the_adapted_model(
    name: str, dora: bool, save: Callable[..., str], tokenizer: PreTrainedTokenizerBase
) -> None:
    """Would catch a delta that is transposed, scaled wrongly, or added to another layer, and norms of columns."""
    path = save(name)
    model = build(path, tokenizer, lora={"rank": 3, "alpha": 5, "dora": dora})
    with torch.no_grad():
        for n, p in model.named_parameters():
            if "lora_B" in n:
                p.normal_(std=0.2)
            if "magnitude" in n:
                p.mul_(torch.rand_like(p) + 0.5)
    assert dora == any("magnitude" in n and p.requires_grad for n, p in model.named_parameters())
    plain = build(path, tokenizer)
    before = plain(**batch_for(plain).inputs).logits
    plain.load_state_dict(merge_adapters(model, {n: p.detach() for n, p in model.named_parameters()}), strict=False)
    batch = batch_for(model)
    wanted = model(**batch.inputs).logits
    assert (wanted - before).abs().max() > 0.1
    assert torch.allclose(plain(**batch.inputs).logits, wanted, atol=2e-4)


def test_an_adapted_head_equals_a_dense_computation(
    save: Callable[..., str], tokenizer: PreTrainedTokenizerBase, small_blocks: None
) -> None:
    """A head of more than one matrix goes in checkpointed blocks. Would catch its adapters left out."""
    model = build(save("plain"), tokenizer, lora={"rank": 3, "target_modules": ["q_proj", "lm_head"]})
    assert not is_one_matrix(model.get_output_embeddings())
    with torch.no_grad():
        for n, p in model.named_parameters():
            if "lora_B" in n:
                p.normal_(std=0.1)
    batch = batch_for(model)
    wanted, found = dense(model, batch), fused(model, batch)
    assert float(found.detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)
    ours = gradients(model, found)
    assert "lm_head.lora_A.default.weight" in ours
    assert_same(ours, gradients(model, wanted))


def test_adapters_that_cannot_be_merged_are_refused(
    save: Callable[..., str], tokenizer: PreTrainedTokenizerBase
) -> None:
    """Would catch a run whose end fails, or whose saved student lacks what it learned."""
    tied = save("tied embeddings")
    with pytest.raises(InputError, match=r"model\.lora\.target_modules = .*shares its weight with the embeddings"):
        build(tied, tokenizer, lora={"target_modules": ["lm_head"]})
    with pytest.raises(InputError, match=r"model\.lora\.target_modules = .*embed_tokens"):
        build(tied, tokenizer, lora={"target_modules": ["q_proj", "embed_tokens"]})
    with pytest.raises(InputError, match=r"model\.lora\.target_modules = .*has no such modules"):
        build(tied, tokenizer, lora={"target_modules": ["nothing"]})


@pytest.mark.parametrize("name", ["plain", "gpt2", "t5, tied"])
@pytest.mark.parametrize("lora", [None, {"rank": 2}])
def test_checkpointed_activations_give_the_same_gradients(
    name: str, lora: dict[str, Any] | None, save: Callable[..., str], tokenizer: PreTrainedTokenizerBase
) -> None:
    """Would catch dropout that comes back with the training mode, and inputs without a gradient under adapters."""
    path, calls = save(name), [0]
    plain = build(path, tokenizer, lora=lora)
    saving = build(path, tokenizer, lora=lora, gradient_checkpointing=True)
    blocks = next(m for n, m in saving.named_modules() if n.endswith((".layers", ".h", ".block")))
    blocks[0].register_forward_pre_hook(lambda *_: calls.__setitem__(0, calls[0] + 1))
    batch = batch_for(plain)
    wanted, found = gradients(plain, fused(plain, batch)), gradients(saving, fused(saving, batch))
    assert calls[0] == 2, "nothing was computed again"
    assert_same(found, wanted)
    assert found and all(gradient.any() for n, gradient in wanted.items() if "lora_B" in n)


def test_vocabularies_of_one_family_may_be_padded_differently(
    save: Callable[..., str], tokenizer: PreTrainedTokenizerBase
) -> None:
    """Would catch a student that cannot name a teacher's id, and one with another tokenizer that is taken anyway."""
    path = save("tied embeddings")
    assert logits_width(build(path, tokenizer, 320)) == VOCAB, "wider than the teacher stays"
    wider = build(path, tokenizer, 350)
    assert logits_width(wider) == 350 and wider.config.vocab_size == 350
    assert wider.get_output_embeddings().weight is wider.get_input_embeddings().weight
    again = build(path, tokenizer, 350).get_input_embeddings().weight
    assert torch.equal(again, wider.get_input_embeddings().weight), "new rows begin with the same values each time"
    narrow = save("plain", vocab_size=len(tokenizer) - 1)
    with pytest.raises(
        InputError, match=f"has {len(tokenizer) - 1} logits, the targets need 350; a student must share"
    ):
        build(narrow, tokenizer, 350)
    with pytest.raises(InputError, match="logits, but the store's vocabulary 350 ids"):
        load_student(path, 350)
    with pytest.raises(InputError, match="cannot be loaded"):
        build("/nowhere", tokenizer)


def test_an_encoder_decoder_cannot_be_packed(tokenizer: PreTrainedTokenizerBase) -> None:
    settings = ModelSettings.model_validate({"config": {"model_type": "t5", **T5}})
    model = build_model(settings, VOCAB, tokenizer, 0)
    assert layout_of(model, None) == EncoderDecoderLayout(2)
    with pytest.raises(InputError, match=r"data\.pack_to: 't5' is of the kind encoder_decoder, which cannot be packed"):
        layout_of(model, 64)


def test_adapters_follow_their_settings(tokenizer: PreTrainedTokenizerBase) -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES))
    adapted = add_adapters(model, LoraSettings(rank=2, target_modules=("q_proj",)), "some")
    shapes = {tuple(p.shape) for p in adapted.parameters() if p.requires_grad}
    assert shapes == {(2, 64), (64, 2)}


@pytest.mark.parametrize("fields", [{"hidden_size": 97}, {"num_hidden_layers": "two"}, {"hidden_size": -8}])
def test_a_configuration_that_no_model_can_have_is_refused_in_one_line(
    fields: dict[str, Any], tokenizer: PreTrainedTokenizerBase
) -> None:
    """Transformers raises errors of its own classes there, of several lines."""
    config = {"model_type": "llama", "hidden_size": 96, "num_attention_heads": 3, **fields}
    with pytest.raises(InputError, match="'llama' cannot be built from it") as raised:
        build_model(ModelSettings(config=config), 500, tokenizer, 0)
    assert "\n" not in str(raised.value)


EXPERTS = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "num_local_experts": 2}
EXPERTS |= {"hidden_size": 16, "intermediate_size": 16}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", ["mixtral", "phimoe"])
def test_routers_do_not_jitter(kind: str, checkpointing: bool, tokenizer: PreTrainedTokenizerBase) -> None:
    """Activation checkpointing needs training mode, where routers draw noise. Would catch runs that do not repeat."""
    fields = {"model_type": kind, "router_jitter_noise": 0.3, **EXPERTS}
    if kind == "phimoe":
        fields["input_jitter_noise"] = 0.3
    settings = ModelSettings(config=fields, gradient_checkpointing=checkpointing)
    model = build_model(settings, len(tokenizer), tokenizer, 0)
    ids = torch.arange(12)[None]
    assert model.training == checkpointing
    assert torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)
    assert router_note(model.config) == (
        "a mixture of experts, trained without a router loss: router_aux_loss_coef = 0.001 has no effect"
    )


def test_a_router_loss_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    """Would catch experts that collapse because a loss that was asked for is left out."""
    settings = ModelSettings(config={"model_type": "mixtral", "output_router_logits": True, **EXPERTS})
    with pytest.raises(
        InputError, match=r"'mixtral': output_router_logits = true .* set output_router_logits to false"
    ):
        build_model(settings, len(tokenizer), tokenizer, 0)


def test_a_model_without_hidden_states_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    """Would catch an attribute error of Transformers in the message."""
    settings = ModelSettings(
        config={"model_type": "llama4_text", "head_dim": 8, "intermediate_size_mlp": 16, **EXPERTS}
    )
    with pytest.raises(InputError, match=r"^model type 'llama4_text': .* cannot be a student; use another model$"):
        build_model(settings, len(tokenizer), tokenizer, 0)


def test_damaged_weights_are_one_error(save: Callable[..., str], tokenizer: PreTrainedTokenizerBase) -> None:
    """Would catch an error of the library that reads them, which is none of Python's own."""
    path = save(next(iter(CONFIGS)))
    (file,) = Path(path).glob("*.safetensors")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(InputError, match="cannot be loaded"):
        build(path, tokenizer)
