"""Keys of DeepSpeed's configuration that a job may set itself (`[deepspeed]`), and those that it may not."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from difflib import get_close_matches
from typing import Any

from cache.errors import InputError

# Keys that other settings determine, with these settings; or with the reason why none may.
OWN = {
    "train_batch_size": "use run.batch_size",
    "train_micro_batch_size_per_gpu": "use run.micro_batch_size",
    "gradient_accumulation_steps": "use run.batch_size and run.micro_batch_size",
    "gradient_clipping": "use optimizer.clip",
    "optimizer": "use [optimizer]",
    "scheduler": "use optimizer.schedule",
    "bf16": "use run.precision",
    "fp16": 'use run.precision = "bf16"; float16 needs a loss scale, which the exact sums here do not have',
    "torch_autocast": "use run.precision",
    "amp": "use run.precision",
    "data_types": "gradients are summed in float32",
    "communication_data_type": "gradients are summed in float32",
    "gradient_allreduce_op": "the loss is an exact sum over ranks",
    "steps_per_print": "metrics.jsonl has every step",
    "checkpoint.load_universal": "it is set when the number of ranks has changed",
    "zero_allow_untested_optimizer": "it is set",
    "zero_force_ds_cpu_optimizer": "the optimizer is that of [optimizer]",
    "zero_optimization.stage": "use run.zero_stage",
    "zero_optimization.cpu_offload": "use run.offload",
    "zero_optimization.cpu_offload_param": "use run.offload",
    "zero_optimization.ignore_unused_parameters": "parameters without a gradient are expected",
    "zero_optimization.elastic_checkpoint": "checkpoints fit any number of ranks",
    "tensor_parallel": "it was not tried with the fused loss, which needs the whole head",
    "sequence_parallel_size": "it was not tried with the fused loss",
    "pipeline": "a student is one module",
    "data_efficiency": "the order of examples is that of [data]",
    "curriculum_learning": "the order of examples is that of [data]",
    "compression_training": "it changes the student",
    "progressive_layer_drop": "it changes the student",
}
# Keys that are passed on: speed, memory, communication and reports.
PASSED = frozenset(
    {
        "activation_checkpointing",
        "aio",
        "checkpoint",
        "comms_logger",
        "compile",
        "csv_monitor",
        "comet",
        "disable_allgather",
        "dump_state",
        "flops_profiler",
        "gradient_predivide_factor",
        "log_level",
        "memory_breakdown",
        "prescale_gradients",
        "tensorboard",
        "timers",
        "wall_clock_breakdown",
        "wandb",
        "zero_optimization",
    }
)
# Those of them that are values. The others are tables.
VALUES = frozenset(
    {
        "disable_allgather",
        "dump_state",
        "gradient_predivide_factor",
        "log_level",
        "memory_breakdown",
        "prescale_gradients",
        "wall_clock_breakdown",
    }
)
LOG_LEVELS = ("debug", "info", "warning", "error", "critical")


def check_options(options: Mapping[str, Any]) -> None:
    """Raise ValueError for a key that another setting determines, or that is not passed on."""
    for path in _paths(options):
        if path in OWN:
            raise ValueError(f"{path} contradicts the job: {OWN[path]}")
    for name in options:
        if name not in PASSED:
            near = get_close_matches(name, PASSED, 1)
            hint = f"did you mean {near[0]}?" if near else f"passed on are {', '.join(sorted(PASSED))}"
            raise ValueError(f"{name} is not passed on to DeepSpeed; {hint}")
        if name in VALUES and not isinstance(options[name], bool | int | float | str):
            raise ValueError(f"{name} must be a value")
        if name not in VALUES and not isinstance(options[name], Mapping):
            raise ValueError(f"{name} must be a table")
    if "log_level" in options and options["log_level"] not in LOG_LEVELS:
        raise ValueError(f"log_level: must be one of {', '.join(LOG_LEVELS)}")


def check_offload(options: Mapping[str, Any], offload: str) -> None:
    """Raise ValueError for a device that run.offload determines. Without it, a device of DeepSpeed may be given."""
    tables = {"none": (), "optimizer": ("offload_optimizer",), "all": ("offload_optimizer", "offload_param")}[offload]
    for name in tables:
        device = options.get("zero_optimization", {}).get(name, {}).get("device", "cpu")
        if device != "cpu":
            raise ValueError(
                f"deepspeed.zero_optimization.{name}.device = {device!r} contradicts run.offload = {offload!r}, which "
                "means the CPU; leave out one of the two"
            )


def require_accepted(options: Mapping[str, Any]) -> None:
    """Raise InputError unless DeepSpeed, which is imported if there are options, knows their keys, with such values."""
    if not options:
        return
    from deepspeed.runtime.config import DeepSpeedConfig
    from pydantic import ValidationError

    _require_zero_options(options.get("zero_optimization", {}))
    try:
        DeepSpeedConfig({"train_micro_batch_size_per_gpu": 1, **deepcopy(dict(options))})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InputError(f"deepspeed: {error.title}: {key}: {first['msg'].lower()}") from None
    except Exception as error:  # each part of the configuration has errors of its own
        raise InputError(f"deepspeed: {' '.join(str(error).split())}") from error


def _require_zero_options(zero: Mapping[str, Any]) -> None:
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
    from pydantic import ValidationError

    try:
        DeepSpeedZeroConfig(**{"stage": 3, **zero})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        near = get_close_matches(key, DeepSpeedZeroConfig.model_fields, 1)
        hint = f"; did you mean {near[0]}?" if near and first["type"] == "extra_forbidden" else ""
        raise InputError(f"deepspeed.zero_optimization.{key}: {first['msg'].lower()}{hint}") from None


def merged(config: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with options added, table by table. What the configuration says itself stays."""
    result = deepcopy(dict(options))
    for name, value in config.items():
        inner = result.get(name)
        result[name] = merged(value, inner) if isinstance(value, Mapping) and isinstance(inner, Mapping) else value
    return result


def _paths(options: Mapping[str, Any], before: str = "") -> Iterator[str]:
    for name, value in options.items():
        yield f"{before}{name}"
        if isinstance(value, Mapping):
            yield from _paths(value, f"{before}{name}.")
