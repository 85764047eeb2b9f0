"""DeepSpeed around a model: initialisation, steps, checkpoints that survive a kill, and full weights."""

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

from cache.errors import InputError
from cache.json_documents import write_json
from student.training.run_files import PROGRESS, read_progress
from student.training.schedule import rate_factor
from student.training.settings import OptimizerSettings, RunSettings


def start_ranks() -> None:
    """Join the process group that RANK, WORLD_SIZE and MASTER_ADDR name, unless the launcher already did."""
    # Compiling this CPU extension takes long. A kill meanwhile leaves a lock on which every later start hangs.
    compatible_ops["deepspeed_shm_comm"] = False
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    deepspeed.init_distributed(dist_backend=backend, verbose=False, dist_init_required=not dist.is_initialized())


class Engine:
    """A model under ZeRO on this rank, restored from the current checkpoint if `checkpoints` has one.

    progress: what was saved with that checkpoint, or None.
    """

    def __init__(self, model: nn.Module, optimizer: OptimizerSettings, run: RunSettings, checkpoints: Path) -> None:
        adam = torch.optim.AdamW(
            [parameter for parameter in model.parameters() if parameter.requires_grad],
            lr=optimizer.lr,
            betas=optimizer.betas,
            weight_decay=optimizer.weight_decay,
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: rate_factor(step, optimizer, run.total_steps))
        self._folder = checkpoints
        self.progress = read_progress(checkpoints)
        ranks = dist.get_world_size()
        # A partitioned optimizer belongs to a number of ranks. Another number of ranks loads its universal form.
        ranks_changed = bool(self.progress and run.zero_stage and self.progress["ranks"] != ranks)
        config = deepspeed_config(optimizer, run, ranks, ranks_changed)
        self._engine, *_ = deepspeed.initialize(model=model, optimizer=adam, lr_scheduler=schedule, config=config)
        self._scale = ranks
        self.device: torch.device = self._engine.device
        if self.progress:
            self._load(f"step-{self.progress['step']}", ranks_changed)

    @property
    def model(self) -> nn.Module:
        """The model that DeepSpeed wraps."""
        return self._engine.module  # type: ignore[no-any-return]

    def begin_micro_batch(self, ends_step: bool) -> None:
        """Call before the forward pass of each micro-batch. ends_step: whether it is the last one of its step.

        Steps may differ in their number of micro-batches; the ranks of one step may not.
        """
        self._engine.set_gradient_accumulation_boundary(ends_step)

    def forward(self, *args: Any) -> Any:
        """The model's forward pass."""
        return self._engine(*args)

    def backward(self, objective: Tensor) -> None:
        """Accumulate the gradient of `objective`, one summand of a sum over all ranks and micro-batches.

        DeepSpeed averages over ranks. The factor undoes this, so every row has the same weight on any rank.
        """
        self._engine.backward(objective * self._scale)

    def step(self) -> None:
        """End a micro-batch. That which ends a step updates the weights."""
        self._engine.step()

    @property
    def learning_rate(self) -> float:
        """The rate of the next update."""
        return float(self._engine.get_lr()[0])

    @property
    def gradient_norm(self) -> float | None:
        """Norm before clipping. None at stage 0 in float32, where DeepSpeed does not report it."""
        norm = self._engine.get_global_grad_norm()
        return float(norm) if norm is not None else None

    def save(self, step: int, progress: dict[str, Any]) -> None:
        """Write a checkpoint. It becomes the current one when rank 0 renames its progress file to its final name."""
        self._engine.save_checkpoint(str(self._folder), tag=f"step-{step}", save_latest=False)
        dist.barrier()
        if dist.get_rank() == 0:
            write_json(self._folder / PROGRESS, {"step": step, "ranks": dist.get_world_size(), **progress})
            for old in self._folder.glob("step-*"):
                if old.name != f"step-{step}":
                    shutil.rmtree(old, ignore_errors=True)
        dist.barrier()

    def full_weights(self) -> dict[str, Tensor]:
        """float32 weights by name: complete on rank 0, an empty dict on the others, at any ZeRO stage."""
        weights = {}
        for name, parameter in self.model.named_parameters():
            full = safe_get_full_fp32_param(parameter) if parameter.requires_grad else None
            with deepspeed.zero.GatheredParameters([parameter], enabled=full is None and hasattr(parameter, "ds_id")):
                if dist.get_rank() == 0:
                    weights[name] = (parameter if full is None else full).detach().float().cpu().clone()
        return weights

    def _load(self, tag: str, ranks_changed: bool) -> None:
        if ranks_changed:
            universal = self._folder / f"{tag}-universal"
            if dist.get_rank() == 0 and not universal.exists():
                _make_universal(self._folder / tag, universal)
            dist.barrier()
            tag = universal.name
        loaded, _ = self._engine.load_checkpoint(str(self._folder), tag=tag)
        if loaded is None:
            raise InputError(f"{self._folder}: the checkpoint {tag} is not complete; remove this folder to start again")


def deepspeed_config(optimizer: OptimizerSettings, run: RunSettings, ranks: int, universal: bool) -> dict[str, Any]:
    """The configuration of DeepSpeed. universal: the checkpoint to load is of another number of ranks."""
    zero: dict[str, Any] = {"stage": run.zero_stage}
    if run.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu"}
    if run.offload == "all":
        zero["offload_param"] = {"device": "cpu"}
    return {
        # The loop counts micro-batches, and says which of them ends a step. These are the neutral values.
        "train_batch_size": ranks,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": optimizer.clip,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        # DeepSpeed's CPU optimizer needs minutes to compile.
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": run.precision == "bf16"},
        "checkpoint": {"load_universal": universal},
        "steps_per_print": 10**9,
    }


def _make_universal(source: Path, target: Path) -> None:
    """Convert a checkpoint to DeepSpeed's format for any number of ranks."""
    draft = target.with_name(f".{target.name}")
    shutil.rmtree(draft, ignore_errors=True)
    command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal"]
    options = ["--input_folder", str(source), "--output_folder", str(draft), "--inject_missing_state"]
    process = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    if process.returncode:
        raise InputError(f"{source}: cannot be converted for another number of ranks: {process.stderr[-500:]}")
    draft.rename(target)
