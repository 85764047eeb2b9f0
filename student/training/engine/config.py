"""The configuration of DeepSpeed for the settings of a run."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch

from student.training.deepspeed_options import merged
from student.training.run_settings import OptimizerSettings, RunSettings

# What a run computes in, by run.precision.
PRECISIONS = MappingProxyType({"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16})


def effective_stage(run: RunSettings, optimizer: OptimizerSettings) -> int:
    """The stage of ZeRO that a run uses. In bfloat16, and with Muon, it is at least 1.

    At stage 0, DeepSpeed sums gradients in bfloat16, and Muon moves weights also by a gradient that is left out.
    Stage 1 gives the same updates from float32 sums and weights. For Muon's whole matrices, stage 2 sums in bfloat16
    too, so that it runs as 1.
    """
    if optimizer.name == "muon" and run.precision == "bf16" and run.zero_stage == 2:
        return 1
    return max(run.zero_stage, 1) if run.precision == "bf16" or optimizer.name == "muon" else run.zero_stage


def deepspeed_config(
    optimizer: OptimizerSettings, run: RunSettings, ranks: int, universal: bool, options: Mapping[str, Any]
) -> dict[str, Any]:
    """The configuration of DeepSpeed. Without ZeRO it does not clip.

    universal: the checkpoint to load is of another number of ranks. options: further keys, which are added.
    """
    stage = effective_stage(run, optimizer)
    zero: dict[str, Any] = {"stage": stage}
    if optimizer.name == "muon":
        zero["reduce_scatter"] = False  # it needs whole matrices
    if run.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu"}
    if run.offload == "all":
        zero["offload_param"] = {"device": "cpu"}
    config = {
        # The loop counts micro-batches, and says which of them ends a step. These are the neutral values.
        "train_batch_size": ranks,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        # Muon's updates are made before DeepSpeed clips, which would clip them.
        "gradient_clipping": optimizer.clip if stage and optimizer.name != "muon" else 0.0,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        # DeepSpeed's CPU optimizer needs minutes to compile.
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": run.precision == "bf16"},
        "checkpoint": {"load_universal": universal},
        "steps_per_print": 10**9,
    }
    if run.precision == "bf16":
        # Over micro-batches and over ranks: a sum in bfloat16 loses small summands.
        config |= {"data_types": {"grad_accum_dtype": "fp32"}, "communication_data_type": "fp32"}
    return merged(config, options)
