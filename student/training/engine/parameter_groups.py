"""Which weights decay: matrices and embeddings, but no norms and no biases."""

from typing import Any

from torch import nn


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The trained parameters in two groups of an optimizer: those that decay, and those that do not.

    A group without parameters is left out. Raises ValueError if nothing is trained.
    """
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for name, parameter in trained if decays(name, parameter)], "weight_decay": weight_decay},
        {"params": [parameter for name, parameter in trained if not decays(name, parameter)], "weight_decay": 0.0},
    ]
    if not trained:
        raise ValueError("no parameter of the model is trained")
    return [group for group in groups if group["params"]]


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies: to matrices, embeddings and convolutions, as in GPT-2 and GPT-3.

    Norms, biases and scales are vectors. Some models have them in two dimensions: a row for each head or expert. The
    rates of state-space models (A_log) do not decay either.
    """
    shape = getattr(parameter, "ds_shape", parameter.shape)  # ZeRO-3 leaves parameters empty
    module = name.split(".")[-2] if "." in name else ""
    is_exception = "bias" in name or "norm" in module or name.endswith("A_log")
    return len(shape) >= 2 and not is_exception
