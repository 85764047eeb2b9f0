"""Arguments of `vllm.LLM` for a teacher: limits, parallelism, quantisation and LoRA."""

import json
from pathlib import Path
from typing import Any

from cache.errors import InputError
from cache.rows.spec import StoreSpec
from teacher_serving.engines.settings import TeacherSettings
from teacher_serving.engines.vllm.more_options import require_no_split_prompts
from teacher_serving.engines.vllm.settings import VllmSettings

EXTENSION = "teacher_serving.engines.vllm.workers.extension.RowsExtension"
# Values of max_lora_rank that vLLM accepts.
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


def llm_options(
    folder: str, teacher: TeacherSettings, engine: VllmSettings, spec: StoreSpec, on_gpu: bool
) -> dict[str, Any]:
    """Build the keyword arguments of `vllm.LLM`. Raises InputError if vLLM cannot use the adapter, or an option."""
    max_model_len = teacher.max_tokens + 1  # vLLM generates at least one token, also when it only scores a prompt
    options: dict[str, Any] = {
        "model": folder,
        "dtype": teacher.dtype,
        "max_model_len": max_model_len,
        "max_logprobs": -1,  # no limit
        "trust_remote_code": teacher.trust_remote_code,
        "disable_log_stats": True,
        "worker_extension_cls": EXTENSION,
        "max_num_batched_tokens": engine.batched_tokens,
        "gpu_memory_utilization": engine.gpu_memory_utilization,
    }
    if not on_gpu:
        options |= {"distributed_executor_backend": "uni"}
        if spec.sampling:
            require_no_split_prompts(engine.options)
            options |= {"max_num_batched_tokens": max(engine.batched_tokens, max_model_len)}
            options |= {"enable_chunked_prefill": False}
    if spec.sampling and spec.sampling.json_schema:
        # Where a schema allows any white space between its parts, a weak model may write nothing else.
        options["structured_outputs_config"] = {"backend": "xgrammar", "disable_any_whitespace": True}
    if engine.tensor_parallel * engine.pipeline_parallel > 1:
        options |= {
            "tensor_parallel_size": engine.tensor_parallel,
            "pipeline_parallel_size": engine.pipeline_parallel,
            "distributed_executor_backend": "mp",
        }
    if teacher.quantization:
        options["quantization"] = teacher.quantization
    if teacher.lora_path:
        options |= lora_options(Path(teacher.lora_path))
    # Nothing is compiled on a CPU, whatever a job says.
    return options | engine.options | ({} if on_gpu else {"enforce_eager": True})


# Keys of adapter_config.json, and the only values with which vLLM applies the whole adapter.
ADAPTER_LIMITS: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA", None),
    "modules_to_save": (None, []),
    "use_dora": (False, None),
    "bias": ("none", None),
    "layer_replication": (None, []),
    "trainable_token_indices": (None, [], {}),
    "rank_pattern": (None, {}),
    "alpha_pattern": (None, {}),
}


def lora_options(adapter: Path) -> dict[str, Any]:
    """Build the arguments of `vllm.LLM` for a LoRA adapter.

    The modules are listed because vLLM otherwise also wraps the LM head, and then computes only one row a sequence.
    Raises InputError if the folder is not a LoRA adapter, or if it changes the LM head.
    """
    try:
        config = json.loads((adapter / "adapter_config.json").read_text())
        rank = int(config["r"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"teacher.lora_path {adapter}: not a LoRA adapter: {error}") from None
    for key, accepted in ADAPTER_LIMITS.items():
        if config.get(key) not in accepted:
            raise InputError(
                f"teacher.lora_path {adapter}: {key} = {config[key]!r} in adapter_config.json, which vLLM cannot "
                'apply; merge the adapter into the model, or use engine.kind = "transformers"'
            )
    targets = config.get("target_modules") or ()
    modules = {
        name.partition(".lora_")[0].rpartition(".")[2]
        for path in sorted(adapter.glob("*.safetensors"))
        for name in _tensor_names(path)
        if ".lora_" in name
    } or (set() if isinstance(targets, str) else set(targets))
    if not modules:
        raise InputError(f"teacher.lora_path {adapter}: its weights name no modules; give a LoRA adapter's folder")
    if "lm_head" in modules:
        raise InputError(
            f"teacher.lora_path {adapter}: the adapter changes lm_head, which vLLM does not apply to prompts; merge it "
            'into the model, or use engine.kind = "transformers"'
        )
    max_rank = next((accepted for accepted in LORA_RANKS if rank <= accepted), rank)
    return {"enable_lora": True, "max_lora_rank": max_rank, "lora_target_modules": sorted(modules)}


def _tensor_names(path: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        return list(file.keys())
