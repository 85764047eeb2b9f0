"""Frozen weights in 4 bits (QLoRA, arXiv 2305.14314), by bitsandbytes: made on loading, and back as plain weights."""

import importlib.util
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from cache.errors import InputError


def require_bitsandbytes(key: str) -> None:
    """Raise InputError, with the command that installs it, if bitsandbytes is missing. key: what needs it."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError(f'{key} needs bitsandbytes: pip install "logitbank[quantised]"')


def loading_options() -> dict[str, Any]:
    """Arguments of from_pretrained with which linear layers, but not the head, have 4-bit NormalFloat weights.

    The scales of their blocks are quantised too: 4.13 bits a weight.
    """
    require_bitsandbytes("model.lora.quantise")
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    # On the CPU also beside a GPU: DeepSpeed moves the model later, and a plan is made without a GPU.
    return {"quantization_config": config, "device_map": {"": "cpu"}}


def finish_loading(model: PreTrainedModel, name: str) -> None:
    """Make the layers compute as this project needs. Raises InputError if the model has no layer in 4 bits."""
    from bitsandbytes.nn import Linear4bit

    layers = [module for module in model.modules() if isinstance(module, Linear4bit)]
    if not layers or any(getattr(layer, "source_cls", None) is Conv1D for layer in layers):
        kind = "layers that are stored transposed" if layers else "no linear layer besides its head"
        raise InputError(f"model.lora.quantise: {name!r} has {kind}; leave it out")
    in_full_size = sum(parameter.numel() for parameter in model.parameters() if parameter.ndim > 2)
    if in_full_size > sum(weight_count(layer.weight) for layer in layers):
        raise InputError(
            f"model.lora.quantise: most weights of {name!r} are in no linear layers, such as those of its experts, and "
            "would stay in full size; leave it out"
        )
    for layer in layers:
        # In the dtype of the first input, which is that of the run.
        layer.compute_dtype, layer.compute_type_is_set = None, False
        # An evaluation on a CPU would repack the weights, round them to bfloat16, and leave them so.
        layer.support_avx512bf16_for_cpu = False
    # The saved student has plain weights.
    del model.config.quantization_config


def plain_weight(parameter: nn.Parameter) -> Tensor:
    """The weight that layers compute with. The parameter itself if it is not in 4 bits."""
    state = getattr(parameter, "quant_state", None)
    if state is None:
        return parameter.detach()
    from bitsandbytes.functional import dequantize_4bit

    with torch.no_grad():
        weight: Tensor = dequantize_4bit(parameter.data, state)
    return weight


def is_in_4_bits(model: nn.Module) -> bool:
    """Whether any weight of the model is in 4 bits."""
    return any(getattr(parameter, "quant_state", None) is not None for parameter in model.parameters())


def weight_count(parameter: nn.Parameter) -> int:
    """Number of weights. A parameter in 4 bits has two in each of its elements."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else state.shape.numel()
