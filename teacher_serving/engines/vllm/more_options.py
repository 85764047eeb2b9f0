"""Arguments of `vllm.LLM` that a job names itself (`engine.options`): which are accepted, and which change content."""

from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from cache.errors import InputError

_IN_A_STORE = "its values may be secret, and a store would show them"
_PLACES = "engine.tensor_parallel, engine.pipeline_parallel and actors say how many GPUs work"
# Arguments that a job may not name, each with what to do instead, or with the reason.
REFUSED = {
    "model": "use teacher.model",
    "model_weights": "use teacher.model",
    "tokenizer": "use teacher.model",
    "dtype": "use teacher.dtype",
    "max_model_len": "use teacher.max_tokens",
    "trust_remote_code": "use teacher.trust_remote_code",
    "quantization": "use teacher.quantization",
    "enable_lora": "use teacher.lora_path",
    "max_lora_rank": "use teacher.lora_path",
    "lora_target_modules": "use teacher.lora_path",
    "max_num_batched_tokens": "use engine.batched_tokens",
    "max_num_scheduled_tokens": "use engine.batched_tokens",
    "gpu_memory_utilization": "use engine.gpu_memory_utilization",
    "tensor_parallel_size": "use engine.tensor_parallel",
    "pipeline_parallel_size": "use engine.pipeline_parallel",
    "structured_outputs_config": "use generation.json_schema",
    "hf_token": "use the environment variable HF_TOKEN",
    "worker_cls": "the workers of logitbank make the rows",
    "worker_extension_cls": "the workers of logitbank make the rows",
    "distributed_executor_backend": "the workers of logitbank make the rows",
    "scheduler_cls": "the rows are those of vLLM's own scheduler",
    "max_logprobs": "there is no limit",
    "logprobs_mode": "rows are those of the raw logits",
    "skip_tokenizer_init": "texts that end a response need the tokenizer",
    "tokens_only": "texts that end a response need the tokenizer",
    "runner": "a teacher generates",
    "convert": "a teacher generates",
    "speculative_config": "the rows of accepted tokens are not made",
    "spec_method": "the rows of accepted tokens are not made",
    "spec_model": "the rows of accepted tokens are not made",
    "spec_tokens": "the rows of accepted tokens are not made",
    "kv_sharing_fast_prefill": "the second half of the model then skips the tokens of prompts, so their rows are wrong",
    "enable_batch_sharded_sampling": "each rank would then see the logits of some requests only",
    "model_loader_extra_config": _IN_A_STORE,
    "kv_transfer_config": _IN_A_STORE,
    "ec_transfer_config": _IN_A_STORE,
    "kv_events_config": _IN_A_STORE,
    "weight_transfer_config": _IN_A_STORE,
    "additional_config": _IN_A_STORE,
    "otlp_traces_endpoint": _IN_A_STORE,
    "nnodes": _PLACES,
    "node_rank": _PLACES,
    "prefill_context_parallel_size": _PLACES,
}
# The same for all arguments with these beginnings.
REFUSED_BEGINNINGS = {"data_parallel_": _PLACES, "master_": _PLACES, "elastic_": _PLACES, "_": "it is private"}
# Arguments that change the speed, the place, the memory or the log, and not what the teacher says, except for rounding.
OF_SPEED = frozenset(
    {
        "async_scheduling",
        "attention_backend",
        "block_size",
        "compilation_config",
        "cpu_offload_gb",
        "cudagraph_capture_sizes",
        "device_ids",
        "disable_cascade_attn",
        "disable_custom_all_reduce",
        "disable_log_stats",
        "distributed_timeout_seconds",
        "download_dir",
        "enable_chunked_prefill",
        "enable_dbo",
        "enable_eplb",
        "enable_expert_parallel",
        "enable_prefix_caching",
        "enforce_eager",
        "kv_cache_memory_bytes",
        "kv_offloading_size",
        "log_level",
        "long_prefill_token_threshold",
        "max_cudagraph_capture_size",
        "max_num_seqs",
        "max_parallel_loading_workers",
        "num_gpu_blocks_override",
        "numa_bind",
        "numa_bind_cpus",
        "numa_bind_nodes",
        "optimization_level",
        "renderer_num_workers",
        "safetensors_load_strategy",
        "safetensors_prefetch_block_size",
        "safetensors_prefetch_num_threads",
        "scheduling_policy",
        "shutdown_timeout",
        "stream_interval",
        "use_tqdm_on_load",
    }
)
# vLLM rewinds the seeded generator of a prompt that it splits, and cannot do so on a CPU.
NOT_WHILE_WRITING_ON_A_CPU = ("enable_chunked_prefill", "long_prefill_token_threshold")


def require_known(options: Mapping[str, Any]) -> None:
    """Raise InputError for an argument that this vLLM does not have, or that a job may not name."""
    if not options:
        return
    for name in options:
        reason = REFUSED.get(name) or next(
            (why for start, why in REFUSED_BEGINNINGS.items() if name.startswith(start)), ""
        )
        if reason:
            raise InputError(f"engine.options.{name} cannot be given: {reason}")
    from vllm.engine.arg_utils import EngineArgs

    known = {item.name for item in fields(EngineArgs)}
    for name in options.keys() - known:
        near = get_close_matches(name, known, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError(f"engine.options.{name}: this vLLM has no such argument{hint}")


def options_of_content(options: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that may change what the teacher says. They belong to the identity of a store."""
    return {name: value for name, value in options.items() if name not in OF_SPEED}


def require_no_split_prompts(options: Mapping[str, Any]) -> None:
    """Raise InputError for an argument that splits prompts, where a teacher writes on a CPU."""
    for name in NOT_WHILE_WRITING_ON_A_CPU:
        if options.get(name):
            raise InputError(
                f"engine.options.{name}: vLLM cannot split prompts where it writes on a CPU, because each response has "
                "a seed of its own; leave it out"
            )
