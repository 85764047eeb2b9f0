"""A LoRA adapter has the effect of merged weights in every engine, and changes the identity of the teacher."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from cache.errors import InputError, LogitbankError
from cache.rows.spec import SamplingSpec, StoreSpec, TargetSpec
from teacher_serving.asking.requests import continuation_request
from teacher_serving.capture.start import describe
from teacher_serving.engines.settings import TeacherSettings
from teacher_serving.engines.vllm import VllmSettings
from teacher_serving.engines.vllm.llm_options import lora_options
from teacher_serving.reduction.settings import TargetSettings
from tests.teacher_serving.engines.engines import Oracle, make_oracle, make_requests, make_teacher, worst_difference

TOLERANCE = 5e-5
SCALING = 2
SAMPLING = SamplingSpec(samples=1, temperature=1.0, top_p=1.0, max_tokens=8, seed=0, answer_marker="")


def save_adapter(base: Path, folder: Path, modules: list[str]) -> Path:
    """An adapter with random weights for modules of a base model."""
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(r=4, lora_alpha=SCALING * 4, target_modules=modules, task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), lora)
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        if "lora_" in name:  # peft starts with a B of zeros, which changes nothing
            weight.data = torch.randn(weight.shape, generator=generator) * 0.2
    model.save_pretrained(folder, save_embedding_layers=False)
    return folder


def merged_oracle(base: Path, adapter: Path, folder: Path) -> Oracle:
    """The adapter's matrices multiplied and added here, not by peft."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    lora = load_file(adapter / "adapter_model.safetensors")
    changed = 0
    with torch.no_grad():
        for name, module in model.named_modules():
            a, b = (lora.get(f"base_model.model.{name}.lora_{half}.weight") for half in "AB")
            if a is not None and b is not None:
                module.weight += SCALING * b @ a
                changed += 1
    assert changed == len(lora) / 2
    model.save_pretrained(folder)
    return make_oracle(folder)


@pytest.fixture(scope="module")
def adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_adapter(tiny_model, tmp_path_factory.mktemp("adapter") / "lora", ["q_proj", "v_proj"])


@pytest.fixture(scope="module")
def merged(tiny_model: Path, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    return merged_oracle(tiny_model, adapter, tmp_path_factory.mktemp("merged"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vllm", "vllm public", "transformers"])
def test_an_adapter_is_as_good_as_merged_weights(kind: str, tiny_model: Path, adapter: Path, merged: Oracle) -> None:
    base = make_oracle(tiny_model)
    teacher = make_teacher(kind, tiny_model, TargetSpec(k=16), generates=True, lora_path=str(adapter))
    given = make_requests()[2:]
    for request, scored in zip(given, teacher.score(given), strict=True):
        assert np.flatnonzero(scored.targets.counts).tolist() == request.rows.tolist()
        assert worst_difference(scored, merged(request.tokens)) < TOLERANCE
        assert worst_difference(scored, base(request.tokens)) > 100 * TOLERANCE
    prompts = given[:3]
    for prompt, written in zip(prompts, teacher.generate(prompts, SAMPLING), strict=True):
        continuation = continuation_request(prompt, written.tokens)
        log_p = merged(continuation.tokens)[continuation.rows]
        token_logprobs = log_p[
            torch.arange(len(written.tokens)), torch.from_numpy(written.tokens.astype(np.int64))
        ].numpy()
        assert np.abs(written.token_logprobs - token_logprobs).max() < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vllm", "transformers"])
def test_an_adapter_of_the_output_layer_is_right_or_refused(kind: str, tiny_model: Path, tmp_path: Path) -> None:
    """vLLM leaves what such an adapter adds out of prompt log-probabilities (its issue 51594)."""
    adapter = save_adapter(tiny_model, tmp_path / "adapter", ["q_proj", "lm_head"])
    oracle = merged_oracle(tiny_model, adapter, tmp_path / "merged")
    request = make_requests()[4]
    try:
        scored = make_teacher(kind, tiny_model, TargetSpec(k=16), lora_path=str(adapter)).score([request])[0]
    except LogitbankError as error:
        assert kind == "vllm" and "lm_head" in str(error)
    else:
        assert worst_difference(scored, oracle(request.tokens)) < TOLERANCE


def identity(model: Path, adapter: Path | None) -> StoreSpec:
    teacher = TeacherSettings(model=str(model), max_tokens=200, lora_path=str(adapter) if adapter else None)
    return describe(teacher, VllmSettings(), TargetSettings(k=4), None).spec


def test_the_identity_is_that_of_the_adapters_content(tiny_model: Path, adapter: Path, tmp_path: Path) -> None:
    plain, given = identity(tiny_model, None), identity(tiny_model, adapter)
    assert plain.adapter == "" and given.adapter and plain.fingerprint != given.fingerprint
    shutil.copytree(adapter, tmp_path / "copy")
    (tmp_path / "copy" / "README.md").write_text("not what the teacher says")
    assert identity(tiny_model, tmp_path / "copy") == given
    for changed in ("adapter_model.safetensors", "adapter_config.json"):
        shutil.copytree(adapter, tmp_path / changed)
        file = tmp_path / changed / changed
        data = bytearray(file.read_bytes())
        data[-2] ^= 1
        if changed == "adapter_config.json":
            data = bytearray(json.dumps(json.loads(file.read_bytes()) | {"lora_alpha": 5}).encode())
        file.write_bytes(data)
        assert identity(tiny_model, tmp_path / changed).fingerprint != given.fingerprint


@pytest.mark.parametrize(
    "key, value",
    [
        ("modules_to_save", ["lm_head"]),
        ("use_dora", True),
        ("bias", "all"),
        ("peft_type", "IA3"),
        ("rank_pattern", {"q_proj": 2}),
        ("trainable_token_indices", [1]),
    ],
)
def test_an_adapter_that_vllm_applies_in_part_is_refused_at_the_dry_run(
    tiny_model: Path, adapter: Path, tmp_path: Path, key: str, value: object
) -> None:
    shutil.copytree(adapter, tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    with pytest.raises(InputError, match=f"teacher.lora_path .*: {key} = .* which vLLM cannot apply; merge"):
        identity(tiny_model, tmp_path / "adapter")


def test_modules_come_from_the_weights_and_not_from_a_pattern(adapter: Path, tmp_path: Path) -> None:
    """A pattern is a text, which would be taken for a list of letters."""
    shutil.copytree(adapter, tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"target_modules": r".*\.(q|v)_proj"}))
    assert lora_options(tmp_path / "adapter")["lora_target_modules"] == ["q_proj", "v_proj"]


@pytest.mark.parametrize("content", ["nothing", "weights", "config"])
def test_a_folder_that_is_no_adapter_is_refused(tiny_model: Path, adapter: Path, tmp_path: Path, content: str) -> None:
    if content == "weights":
        shutil.copy(adapter / "adapter_model.safetensors", tmp_path)
    if content == "config":
        shutil.copy(adapter / "adapter_config.json", tmp_path)
    with pytest.raises(InputError, match=r"lora_path.*adapter_config\.json with weights"):
        identity(tiny_model, tmp_path)
    with pytest.raises(InputError, match="lora_path"):
        identity(tiny_model, tmp_path / "nowhere")


def test_the_rank_is_one_that_vllm_has(tmp_path: Path) -> None:
    for rank, room in ((1, 8), (8, 8), (9, 16), (256, 256), (257, 320)):
        (tmp_path / "adapter_config.json").write_text(json.dumps({"r": rank, "target_modules": ["q_proj"]}))
        assert lora_options(tmp_path)["max_lora_rank"] == room
    for wrong in ("{", "{}", '{"r": "many"}'):
        (tmp_path / "adapter_config.json").write_text(wrong)
        with pytest.raises(InputError, match="not a LoRA adapter"):
            lora_options(tmp_path)
