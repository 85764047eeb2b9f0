"""The optimizers by name, over the parameters of a model.

A name is a key of OPTIMIZERS. To add one: write a function as those below, add it there and to OptimizerSettings.name,
and run the tests of the engine with it.
"""

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

import torch
from torch import nn

from cache.errors import InputError
from student.models.quantised import require_bitsandbytes
from student.training.engine.parameter_groups import muon_groups, parameter_groups
from student.training.run_settings import OptimizerSettings

# The newest method of DeepSpeed ("gram") needs half precision, which CPUs are slow at.
NEWTON_SCHULZ = "standard"


def make_optimizer(
    model: nn.Module, settings: OptimizerSettings, outer: Collection[nn.Parameter] = ()
) -> torch.optim.Optimizer:
    """The optimizer of these settings. outer: matrices of the head, which Muon leaves to AdamW."""
    return OPTIMIZERS[settings.name](model, settings, outer)


def require_optimizer(model: nn.Module, settings: OptimizerSettings, outer: Collection[nn.Parameter] = ()) -> None:
    """Raise InputError if the optimizer needs a package that is not installed, or finds nothing to update."""
    if settings.name == "adamw_8bit":
        require_bitsandbytes('optimizer.name = "adamw_8bit"')
    if settings.name == "muon" and not muon_groups(model, 0.0, outer)[0]["params"]:
        raise InputError('optimizer.name = "muon": the student has no hidden matrix that is trained; use "adamw"')


def _adamw(model: nn.Module, settings: OptimizerSettings, outer: Collection[nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW of PyTorch in one pass over memory, on GPUs and on CPUs."""
    groups = parameter_groups(model, settings.weight_decay)
    return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, fused=True)


def _adamw_8bit(
    model: nn.Module, settings: OptimizerSettings, outer: Collection[nn.Parameter]
) -> torch.optim.Optimizer:
    """AdamW with moments of 8 bits, in blocks with a scale of their own (Dettmers et al., arXiv 2110.02861)."""
    from bitsandbytes.optim import AdamW8bit

    groups = parameter_groups(model, settings.weight_decay)
    optimizer: torch.optim.Optimizer = AdamW8bit(groups, lr=settings.lr, betas=settings.betas)
    return optimizer


def _muon(model: nn.Module, settings: OptimizerSettings, outer: Collection[nn.Parameter]) -> torch.optim.Optimizer:
    """Muon of DeepSpeed, which knows how ZeRO divides a matrix, and its AdamW for all that is no hidden matrix.

    A step that is left out changes no weight. At stage 3, the momenta of matrices whose gradient was finite still move.
    """
    from deepspeed.runtime.zero.muon.muon_optimizer import MuonWithAuxAdam

    hidden, others = muon_groups(model, settings.weight_decay, outer)
    for group, is_muon in [(hidden, True), *((group, False) for group in others)]:
        for parameter in group["params"]:
            parameter.use_muon = is_muon  # ZeRO reads it
    adam = {"use_muon": False, "lr": settings.adam_lr, "betas": settings.betas, "eps": 1e-8}
    muon = {"use_muon": True, "lr": settings.lr, "momentum": settings.momentum, "ns_method": NEWTON_SCHULZ}
    groups = [{**hidden, **muon}, *({**group, **adam} for group in others)]
    optimizer: torch.optim.Optimizer = MuonWithAuxAdam(groups)
    return optimizer


Maker = Callable[[nn.Module, OptimizerSettings, Collection[nn.Parameter]], torch.optim.Optimizer]
OPTIMIZERS: Mapping[str, Maker] = MappingProxyType({"adamw": _adamw, "adamw_8bit": _adamw_8bit, "muon": _muon})
