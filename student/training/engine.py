"""DeepSpeed around a model: set-up, steps, checkpoints that survive a kill, and full weights."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.ops import __compatible_ops__ as compatible_ops
from deepspeed.utils import safe_get_full_fp32_param
from torch import Tensor, nn

from cache.documents import write_json
from cache.errors import InputError
from student.training.run_files import PROGRESS, read_progress
from student.training.schedule import rate_factor
from student.training.settings import OptimizerSettings, RunSettings


def start_ranks() -> None:
    """Join the process group named by RANK, WORLD_SIZE and MASTER_ADDR, unless the launcher already did."""
    # Compiling this CPU extension takes long, and a kill meanwhile leaves a lock that hangs every later start.
    compatible_ops["deepspeed_shm_comm"] = False
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    deepspeed.init_distributed(dist_backend=backend, verbose=False, dist_init_required=not dist.is_initialized())


class Engine:
    """A model under ZeRO on this rank, continued from the checkpoint that counts where `checkpoints` has one.

    progress: what was saved with that checkpoint, or None.
    """

    def __init__(self, model: nn.Module, optimizer: OptimizerSettings, run: RunSettings, checkpoints: Path) -> None:
        adam = torch.optim.AdamW(
            [parameter for parameter in model.parameters() if parameter.requires_grad],
            lr=optimizer.lr,
            betas=optimizer.betas,
            weight_decay=optimizer.weight_decay,
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: rate_factor(step, optimizer, run.steps))
        self._folder = checkpoints
        self.progress = read_progress(checkpoints)
        # A partitioned optimizer belongs to a number of ranks; another number reads the universal form of it.
        moved = bool(self.progress and run.zero_stage and self.progress["ranks"] != dist.get_world_size())
        config = deepspeed_config(optimizer, run, moved)
        self._engine, *_ = deepspeed.initialize(model=model, optimizer=adam, lr_scheduler=schedule, config=config)
        self._scale = dist.get_world_size() * run.accumulation
        self.device: torch.device = self._engine.device
        if self.progress:
            self._load(f"step-{self.progress['step']}", moved)

    @property
    def model(self) -> nn.Module:
        return self._engine.module  # type: ignore[no-any-return]

    def forward(self, *args: Any) -> Any:
        return self._engine(*args)

    def backward(self, objective: Tensor) -> None:
        """Accumulate the gradient of `objective`, a part of one sum over all ranks and micro-batches.

        DeepSpeed averages over both; the factor takes that back, so every row weighs the same wherever it lies.
        """
        self._engine.backward(objective * self._scale)

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

    def save(self, step: int, progress: dict[str, Any]) -> None:
        """Write a checkpoint; it counts from the moment that rank 0 has renamed its progress file into place."""
        self._engine.save_checkpoint(str(self._folder), tag=f"step-{step}", save_latest=False)
        dist.barrier()
        if dist.get_rank() == 0:
            write_json(self._folder / PROGRESS, {"step": step, "ranks": dist.get_world_size(), **progress})
            for old in self._folder.glob("step-*"):
                if old.name != f"step-{step}":
                    shutil.rmtree(old, ignore_errors=True)
        dist.barrier()

    def full_weights(self) -> dict[str, Tensor]:
        """float32 weights by name, whole on rank 0 and empty on the others, whatever the ZeRO stage."""
        weights = {}
        for name, parameter in self.model.named_parameters():
            full = safe_get_full_fp32_param(parameter) if parameter.requires_grad else None
            with deepspeed.zero.GatheredParameters([parameter], enabled=full is None and hasattr(parameter, "ds_id")):
                if dist.get_rank() == 0:
                    weights[name] = (parameter if full is None else full).detach().float().cpu().clone()
        return weights

    def _load(self, tag: str, moved: bool) -> None:
        if moved:
            universal = self._folder / f"{tag}-universal"
            if dist.get_rank() == 0 and not universal.exists():
                _make_universal(self._folder / tag, universal)
            dist.barrier()
            tag = universal.name
        loaded, _ = self._engine.load_checkpoint(str(self._folder), tag=tag)
        if loaded is None:
            raise InputError(f"{self._folder}: the checkpoint {tag} is not complete; remove {self._folder}")


def deepspeed_config(optimizer: OptimizerSettings, run: RunSettings, universal: bool) -> dict[str, Any]:
    """What DeepSpeed is told."""
    zero: dict[str, Any] = {"stage": run.zero_stage}
    if run.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu"}
    if run.offload == "all":
        zero["offload_param"] = {"device": "cpu"}
    return {
        "train_batch_size": run.batch_size,
        "train_micro_batch_size_per_gpu": run.micro_batch_size,
        "gradient_accumulation_steps": run.accumulation,
        "gradient_clipping": optimizer.clip,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        # Its own CPU optimizer would be compiled first, for minutes.
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": run.precision == "bf16"},
        "checkpoint": {"load_universal": universal},
        "steps_per_print": 10**9,
    }


def _make_universal(source: Path, target: Path) -> None:
    """A checkpoint in DeepSpeed's form for any number of ranks."""
    draft = target.with_name(f".{target.name}")
    shutil.rmtree(draft, ignore_errors=True)
    command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal"]
    options = ["--input_folder", str(source), "--output_folder", str(draft), "--inject_missing_state"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"{source}: cannot be converted for another number of ranks: {done.stderr[-500:]}")
    draft.rename(target)
