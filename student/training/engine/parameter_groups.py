"""Which weights decay: matrices and embeddings, but no norms and no biases. And which of them Muon updates."""

from collections.abc import Collection
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The trained parameters in two groups of an optimizer: those that decay, and those that do not.

    A group without parameters is left out. Raises ValueError if nothing is trained.
    """
    trained = _trained(model)
    groups = [
        {"params": [parameter for name, parameter in trained if decays(name, parameter)], "weight_decay": weight_decay},
        {"params": [parameter for name, parameter in trained if not decays(name, parameter)], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def muon_groups(
    model: nn.Module, weight_decay: float, outer: Collection[nn.Parameter] = ()
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The group of the hidden matrices, and the groups of all other trained parameters.

    outer: matrices of the head. They, embeddings with their adapters, convolutions and stacked experts are no hidden
    matrices; nor are those of GPT-2's Conv1D, which has inputs as rows: Muon scales an update by the shape.
    """
    apart = {id(parameter) for parameter in outer}
    for module in model.modules():
        is_adapted = isinstance(getattr(module, "base_layer", None), nn.Embedding)
        if isinstance(module, nn.Embedding | Conv1D) or is_adapted:
            apart |= {id(parameter) for parameter in module.parameters()}
    hidden = [
        parameter
        for name, parameter in _trained(model)
        if decays(name, parameter) and len(_shape(parameter)) == 2 and id(parameter) not in apart
    ]
    is_hidden = set(map(id, hidden))
    others = [
        {**group, "params": [parameter for parameter in group["params"] if id(parameter) not in is_hidden]}
        for group in parameter_groups(model, weight_decay)
    ]
    return {"params": hidden, "weight_decay": weight_decay}, [group for group in others if group["params"]]


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies: to matrices, embeddings and convolutions, as in GPT-2 and GPT-3.

    Norms, biases and scales are vectors. Some models have them in two dimensions: a row for each head or expert. The
    rates of state-space models (A_log) do not decay either.
    """
    module = name.split(".")[-2] if "." in name else ""
    is_exception = "bias" in name or "norm" in module or name.endswith("A_log")
    return len(_shape(parameter)) >= 2 and not is_exception


def _trained(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    if not trained:
        raise ValueError("no parameter of the model is trained")
    return trained


def _shape(parameter: nn.Parameter) -> tuple[int, ...]:
    return tuple(getattr(parameter, "ds_shape", parameter.shape))  # ZeRO-3 leaves parameters empty
