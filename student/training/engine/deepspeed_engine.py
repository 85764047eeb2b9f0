"""DeepSpeed around a model: initialisation, steps, checkpoints that survive a kill, and full weights."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.ops import __compatible_ops__ as compatible_ops
from deepspeed.utils import safe_get_full_fp32_param
from torch import Tensor, nn

from cache.errors import InputError
from student.models.quantised import is_in_4_bits, plain_weight
from student.training.engine.checkpoints import (
    commit_checkpoint,
    make_universal,
    remove_unfinished,
    require_continuable,
    require_known_format,
    universal_checkpoint,
)
from student.training.engine.config import PRECISIONS, deepspeed_config, effective_stage
from student.training.engine.first_rank_weights import (
    checksum_of_first_rank,
    give_weights,
    has_one_reader,
    rank_device,
)
from student.training.engine.optimizers import make_optimizer
from student.training.engine.schedule import rate_factor
from student.training.run_files import checkpoint_folder, read_progress
from student.training.run_settings import OptimizerSettings, RunSettings

NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


def start_ranks() -> None:
    """Join the process group that RANK, WORLD_SIZE and MASTER_ADDR name, unless the launcher already did."""
    # Compiling this CPU extension takes long. A kill meanwhile leaves a lock on which every later start hangs.
    compatible_ops["deepspeed_shm_comm"] = False
    if not torch.cuda.is_available():
        # DeepSpeed compiles Muon's update. On a CPU this takes longer than it saves, and needs a C++ compiler.
        torch.compiler.set_stance("force_eager")
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    deepspeed.init_distributed(dist_backend=backend, verbose=False, dist_init_required=not dist.is_initialized())


class Engine:
    """A model under ZeRO on this rank, restored from the current checkpoint if `checkpoints` has one.

    model: those of rank 0 count. Of the other ranks, parameters may be on the meta device (has_one_reader).
    options: further keys of DeepSpeed's configuration. outer: matrices of the head, for Muon. progress: what was saved
    with that checkpoint, or None. step_was_applied: whether the last update changed the weights. An update whose
    gradient is not finite changes none. gathers_weights: whether all ranks must take part in each forward pass.
    Raises InputError if the checkpoint cannot be continued.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: OptimizerSettings,
        run: RunSettings,
        checkpoints: Path,
        options: Mapping[str, Any] = NO_OPTIONS,
        outer: Collection[nn.Parameter] = (),
    ) -> None:
        ranks, stage, device = dist.get_world_size(), effective_stage(run, optimizer), rank_device()
        self._frozen = checksum_of_first_rank(model, device)
        if has_one_reader(run, optimizer, options, ranks, is_in_4_bits(model)):
            config = deepspeed_config(optimizer, run, ranks, False, options) if stage == 3 else None
            give_weights(model, PRECISIONS[run.precision], device, config)
        made = make_optimizer(model, optimizer, outer)
        schedule = torch.optim.lr_scheduler.LambdaLR(made, lambda step: rate_factor(step, optimizer, run.total_steps))
        kept = ("weight_decay", "fused", "foreach")
        self._own = [{key: group[key] for key in kept if key in group} for group in made.param_groups]
        self._folder, self._keep = checkpoints, run.keep_checkpoints
        self.progress = read_progress(checkpoints)
        if self.progress:
            require_known_format(checkpoints)
            self._require_same_base(self.progress)
        # A partitioned optimizer belongs to a number of ranks. Another number of ranks loads its universal form.
        is_partitioned, self.gathers_weights = stage > 0, stage == 3 and ranks > 1
        ranks_changed = bool(self.progress and is_partitioned and self.progress["ranks"] != ranks)
        require_continuable(checkpoints, optimizer, run, ranks)
        config = deepspeed_config(optimizer, run, ranks, ranks_changed, options)
        self._engine, *_ = deepspeed.initialize(model=model, optimizer=made, lr_scheduler=schedule, config=config)
        self._clip = None if is_partitioned else optimizer.clip
        self._knows_norm = optimizer.name != "muon"
        self._norm: float | None = None
        self.step_was_applied = True
        self._scale, self._ends_step = ranks, True
        self.device: torch.device = self._engine.device
        if self.progress:
            self._load(self.progress["step"], ranks_changed)

    @property
    def model(self) -> nn.Module:
        """The model that DeepSpeed wraps."""
        return self._engine.module  # type: ignore[no-any-return]

    def begin_micro_batch(self, ends_step: bool) -> None:
        """Call before the forward pass of each micro-batch. ends_step: whether it is the last one of its step.

        Steps may differ in their number of micro-batches; the ranks of one step may not.
        """
        self._ends_step = ends_step
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
        """End a micro-batch. That which ends a step updates the weights, if the gradient of the step is finite.

        The learning rate follows the schedule in both cases.
        """
        if not self._ends_step:
            self._engine.step()
            return
        is_finite = self._clip_gradient(self._clip) if self._clip is not None else True
        self._engine.step()
        if self._clip is None:
            is_finite = self._engine.was_step_applied()
            self._norm = float(self._engine.get_global_grad_norm()) if is_finite and self._knows_norm else None
            if not is_finite:
                self._forget_gradients()
                self._engine.lr_scheduler.step()
        self.step_was_applied = is_finite

    @property
    def learning_rate(self) -> float:
        """The rate of the next update."""
        return float(self._engine.get_lr()[0])

    @property
    def gradient_norm(self) -> float | None:
        """Norm of the last gradient before clipping. None if it was not finite, and with Muon."""
        return self._norm

    def save(self, step: int, progress: dict[str, Any]) -> None:
        """Write a checkpoint, without frozen weights. It becomes the current one when rank 0 commits it."""
        name = checkpoint_folder(self._folder, step).name
        if os.environ.get("LOCAL_RANK", "0") == "0":
            remove_unfinished(self._folder, step)
        dist.barrier()
        self._engine.save_checkpoint(
            str(self._folder), tag=name, save_latest=False, exclude_frozen_parameters=self._frozen is not None
        )
        dist.barrier()
        if dist.get_rank() == 0:
            document = {"ranks": dist.get_world_size(), "frozen": self._frozen, **progress}
            commit_checkpoint(self._folder, step, document, self._keep)
        dist.barrier()

    def weights_are_finite(self) -> bool:
        """Whether all weights of all ranks are finite. Every rank must call it."""
        is_finite = torch.ones((), device=self.device)
        for parameter in self.model.parameters():
            values = getattr(parameter, "ds_tensor", parameter).detach()
            is_finite *= values.isfinite().all().to(self.device)
        dist.all_reduce(is_finite, dist.ReduceOp.MIN)
        return bool(is_finite)

    def full_weights(self, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        """Weights by name, on the CPU: complete on rank 0, an empty dict on the others, at any ZeRO stage.

        Of trained weights these are the float32 originals, also in a bfloat16 run; rounded to `dtype`.
        """
        weights = {}
        for name, parameter in self.model.named_parameters():
            full = safe_get_full_fp32_param(parameter) if parameter.requires_grad else None
            with deepspeed.zero.GatheredParameters([parameter], enabled=full is None and hasattr(parameter, "ds_id")):
                if dist.get_rank() == 0:
                    weights[name] = (
                        (plain_weight(parameter) if full is None else full).detach().to("cpu", dtype, copy=True)
                    )
        return weights

    def _clip_gradient(self, limit: float) -> bool:
        """Clip the gradient to a norm, without ZeRO, where it is the same on all ranks. Returns whether it is finite.

        DeepSpeed does not test it there. A gradient that is not finite is removed: AdamW then changes nothing.
        """
        parameters = [each for each in self.model.parameters() if each.grad is not None]
        norm = torch.nn.utils.get_total_norm([each.grad for each in parameters if each.grad is not None])
        is_finite = bool(norm.isfinite())
        self._norm = float(norm) if is_finite else None
        if is_finite:
            torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
        else:
            for parameter in parameters:
                parameter.grad = None
        return is_finite

    def _require_same_base(self, progress: dict[str, Any]) -> None:
        if progress.get("frozen") != self._frozen:
            raise InputError(
                f"{self._folder}: these adapters were trained on other base weights than model.pretrained has now; "
                "restore the base weights, or train into another output"
            )

    def _load(self, step: int, ranks_changed: bool) -> None:
        tag = checkpoint_folder(self._folder, step).name
        if ranks_changed:
            if dist.get_rank() == 0:
                make_universal(self._folder, step)
            dist.barrier()
            if os.environ.get("LOCAL_RANK", "0") == "0":  # of a machine that has a folder of its own
                make_universal(self._folder, step)
            dist.barrier()
            tag = universal_checkpoint(self._folder, step)
        loaded, _ = self._engine.load_checkpoint(str(self._folder), tag=tag, load_module_strict=self._frozen is None)
        if loaded is None:
            raise InputError(f"{self._folder}: the checkpoint {tag} is not complete; remove this folder to start again")
        self._separate_groups()

    def _forget_gradients(self) -> None:
        """Remove the gradients of a step that was left out. With offload, DeepSpeed would add the next ones to them."""
        zero = self._engine.optimizer
        if getattr(zero, "cpu_offload", False):
            for name in ("averaged_gradients", "all_grad_tensors"):
                gradients = getattr(zero, name, {})
                for group in gradients:
                    gradients[group] = None

    def _separate_groups(self) -> None:
        """Undo what DeepSpeed mixes up when it loads a checkpoint.

        Of another number of ranks, ZeRO-3 gives all groups of parameters the weight decay of the first one, and lets
        them share one counter of steps, which each of them then advances; the counters are on the CPU, where the fused
        update of a GPU cannot read them. A checkpoint of an earlier version takes the fused update back.
        """
        optimizer = self._engine.basic_optimizer
        for group, own in zip(optimizer.param_groups, self._own, strict=True):
            group.update(own)
        for parameter, state in optimizer.state.items():
            if isinstance(state.get("step"), Tensor):
                state["step"] = state["step"].to(parameter.device, copy=True)
