"""Arguments of `vllm.LLM` that a job names itself (`engine.options`): which are accepted, and which change content."""

from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from cache.errors import InputError

# Arguments that logitbank sets, with the setting to use instead; "" where there is none.
OWN = {
    "model": "teacher.model",
    "tokenizer": "teacher.model",
    "dtype": "teacher.dtype",
    "max_model_len": "teacher.max_tokens",
    "trust_remote_code": "teacher.trust_remote_code",
    "quantization": "teacher.quantization",
    "enable_lora": "teacher.lora_path",
    "max_lora_rank": "teacher.lora_path",
    "lora_target_modules": "teacher.lora_path",
    "max_num_batched_tokens": "engine.batched_tokens",
    "gpu_memory_utilization": "engine.gpu_memory_utilization",
    "tensor_parallel_size": "engine.tensor_parallel",
    "pipeline_parallel_size": "engine.pipeline_parallel",
    "worker_extension_cls": "",
    "max_logprobs": "",
    "logprobs_mode": "",
    "structured_outputs_config": "generation.json_schema",
    "distributed_executor_backend": "",
    "speculative_config": "",
    "spec_method": "",
    "spec_model": "",
    "spec_tokens": "",
    "worker_cls": "",
    "hf_token": "the environment variable HF_TOKEN",
    "skip_tokenizer_init": "",
    "runner": "",
    "convert": "",
}
# Arguments that change the speed, the place or the memory, and not what the teacher says, except for rounding.
OF_SPEED = frozenset(
    {
        "async_scheduling",
        "attention_backend",
        "attention_config",
        "block_size",
        "code_revision",
        "compilation_config",
        "cpu_offload_gb",
        "cudagraph_capture_sizes",
        "data_parallel_size",
        "disable_cascade_attn",
        "disable_custom_all_reduce",
        "disable_log_stats",
        "download_dir",
        "enable_chunked_prefill",
        "enable_dbo",
        "enable_eplb",
        "enable_expert_parallel",
        "enable_prefix_caching",
        "enforce_eager",
        "kv_cache_memory_bytes",
        "kv_offloading_size",
        "long_prefill_token_threshold",
        "max_cudagraph_capture_size",
        "max_num_seqs",
        "max_parallel_loading_workers",
        "moe_backend",
        "num_gpu_blocks_override",
        "optimization_level",
        "safetensors_load_strategy",
        "scheduling_policy",
    }
)


def require_known(options: Mapping[str, Any]) -> None:
    """Raise InputError for an argument that this vLLM does not have, or that another setting determines."""
    if not options:
        return
    for name in options.keys() & OWN.keys():
        instead = f"; use {OWN[name]}" if OWN[name] else "; leave it out"
        raise InputError(f"engine.options.{name}: logitbank sets this argument of vLLM{instead}")
    from vllm.engine.arg_utils import EngineArgs

    known = {item.name for item in fields(EngineArgs)}
    for name in options.keys() - known:
        near = get_close_matches(name, known, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError(f"engine.options.{name}: this vLLM has no such argument{hint}")


def options_of_content(options: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that may change what the teacher says. They belong to the identity of a store."""
    return {name: value for name, value in options.items() if name not in OF_SPEED}
