"""A student from some layers of a pretrained model, as DistilBERT began from its teacher (Sanh et al., 2019)."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from cache.errors import InputError


def keep_layers(model: PreTrainedModel, layers: int | Sequence[int], name: str) -> PreTrainedModel:
    """A model with some layers of `model`, in their order, and everything else of it.

    layers: their numbers from 0, or how many: then the first, the last and evenly spaced ones between them. name: of
    the model, for messages. Raises InputError if there are no such layers, or if the model is no single stack.
    """
    config = model.config.get_text_config()
    total = int(getattr(config, "num_hidden_layers", 0) or 0)
    stacks = [key for key, part in model.named_modules() if isinstance(part, nn.ModuleList) and len(part) == total]
    if model.config.is_encoder_decoder or len(stacks) != 1 or not total:
        raise InputError(
            f"model.layers: {name!r} of type {model.config.model_type!r} is no single stack of layers; leave it out"
        )
    chosen = _chosen(layers, total, name)
    smaller = copy.deepcopy(model.config)
    text = smaller.get_text_config()
    for key, value in lists_by_layer(text).items():
        setattr(text, key, type(value)(value[number] for number in chosen))
    text.num_hidden_layers = len(chosen)
    student: PreTrainedModel = type(model)._from_config(smaller, dtype=model.dtype)
    student.load_state_dict(_weights(model, stacks[0], chosen))
    if getattr(model, "generation_config", None) is not None:  # a classifier has none
        student.generation_config = model.generation_config
    return student


def lists_by_layer(config: PreTrainedConfig) -> dict[str, Any]:
    """The entries of a configuration that have a value for each layer, such as the kind of its attention."""
    total = getattr(config, "num_hidden_layers", None)
    entries = vars(config).items()
    return {key: value for key, value in entries if isinstance(value, list | tuple) and len(value) == total}


def _chosen(layers: int | Sequence[int], total: int, name: str) -> list[int]:
    if isinstance(layers, int):
        if layers > total:
            raise InputError(f"model.layers = {layers}: {name!r} has {total} layers; give a smaller number")
        steps = max(layers - 1, 1)
        return [round(number * (total - 1) / steps) for number in range(layers)]
    if wrong := [number for number in layers if number >= total]:
        raise InputError(f"model.layers: {name!r} has no layer {wrong[0]}; its {total} layers have numbers from 0")
    return list(layers)


def _weights(model: PreTrainedModel, stack: str, chosen: Sequence[int]) -> dict[str, torch.Tensor]:
    """The weights of a model with only the chosen layers of a stack, under their new numbers."""
    new = {number: place for place, number in enumerate(chosen)}
    weights = {}
    for key, weight in model.state_dict().items():
        if not key.startswith(f"{stack}."):
            weights[key] = weight
            continue
        number, _, rest = key.removeprefix(f"{stack}.").partition(".")
        if int(number) in new:
            weights[f"{stack}.{new[int(number)]}.{rest}"] = weight
    return weights
