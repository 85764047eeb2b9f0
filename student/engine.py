"""DeepSpeed around a LossModel: set-up, checkpoints that survive a kill, and export of full weights."""

import math
import shutil
from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.ops import __compatible_ops__ as compatible_ops
from deepspeed.utils import safe_get_full_fp32_param

from cache.documents import write_json
from cache.errors import InputError
from student.config import OptimizerSettings, RunSettings
from student.models import LossModel
from student.run_files import PROGRESS, read_progress


def start_ranks() -> None:
    """Join the process group named by RANK, WORLD_SIZE and MASTER_ADDR, unless the launcher already did."""
    # Compiling this CPU extension takes long, and a kill meanwhile leaves a lock that hangs every later start.
    compatible_ops["deepspeed_shm_comm"] = False
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    deepspeed.init_distributed(dist_backend=backend, verbose=False, dist_init_required=not dist.is_initialized())


def learning_rate(step: int, settings: OptimizerSettings, steps: int) -> float:
    """Factor on the peak rate at `step`: linear warm-up, then cosine to 0.1."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, steps - settings.warmup_steps)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, done)))


class Engine:
    """A LossModel under ZeRO on this rank."""

    def __init__(self, model: LossModel, optimizer: OptimizerSettings, run: RunSettings) -> None:
        adam = torch.optim.AdamW(
            model.parameters(), lr=optimizer.lr, betas=(0.9, 0.95), weight_decay=optimizer.weight_decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: learning_rate(step, optimizer, run.steps))
        config = {
            "train_batch_size": run.batch_size,
            "train_micro_batch_size_per_gpu": run.micro_batch_size,
            "gradient_accumulation_steps": run.accumulation,
            "gradient_clipping": optimizer.clip,
            "zero_optimization": {"stage": run.zero_stage},
            "zero_allow_untested_optimizer": True,
            "bf16": {"enabled": run.precision == "bf16"},
            "steps_per_print": 10**9,
        }
        self._engine, *_ = deepspeed.initialize(model=model, optimizer=adam, lr_scheduler=schedule, config=config)
        self._scale = dist.get_world_size() * run.accumulation
        self.device: torch.device = self._engine.device

    def forward(self, *args: Any) -> Any:
        return self._engine(*args)

    def backward(self, objective_sum: torch.Tensor, window_rows: int) -> None:
        """Accumulate the gradient of objective_sum / window_rows, window_rows counted over all ranks and micro-batches.

        DeepSpeed averages over both; the factor takes that back, so every row weighs the same wherever it lies.
        """
        self._engine.backward(objective_sum * (self._scale / window_rows))

    def step(self) -> None:
        """Ends a micro-batch; the last one of a window updates the weights."""
        self._engine.step()

    @property
    def learning_rate(self) -> float:
        return float(self._engine.get_lr()[0])

    @property
    def gradient_norm(self) -> float | None:
        """Norm before clipping; DeepSpeed tells none at stage 0 in float32."""
        norm = self._engine.get_global_grad_norm()
        return float(norm) if norm is not None else None

    def save(self, folder: Path, step: int, progress: dict[str, Any]) -> None:
        """Write a checkpoint; it counts from the moment that rank 0 has renamed its progress file into place."""
        self._engine.save_checkpoint(str(folder), tag=f"step-{step}", save_latest=False)
        dist.barrier()
        if dist.get_rank() == 0:
            previous = read_progress(folder)
            write_json(folder / PROGRESS, {"step": step, **progress})
            if previous and previous["step"] != step:
                shutil.rmtree(folder / f"step-{previous['step']}", ignore_errors=True)
        dist.barrier()

    def load(self, folder: Path) -> dict[str, Any] | None:
        """Continue from the checkpoint that counts. Returns its progress, or None where there is none."""
        progress = read_progress(folder)
        if progress:
            loaded, _ = self._engine.load_checkpoint(str(folder), tag=f"step-{progress['step']}")
            if loaded is None:
                raise InputError(
                    f"{folder}: the checkpoint of step {progress['step']} is not complete; remove {folder}"
                )
        return progress

    def full_weights(self) -> dict[str, torch.Tensor]:
        """float32 weights of the language model by name, whole on every rank, whatever the ZeRO stage."""
        weights = {}
        for name, parameter in self._engine.module.model.named_parameters():
            full = safe_get_full_fp32_param(parameter)
            weights[name] = (parameter if full is None else full).detach().float().cpu().clone()
        return weights
