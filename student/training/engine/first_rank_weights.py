"""The start of several ranks: rank 0 alone reads the weights of the model, and the others get theirs from it."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import deepspeed
import torch
import torch.distributed as dist
from torch import Tensor, nn

from student.training.engine.config import effective_stage
from student.training.engine.frozen_weights import frozen_checksum
from student.training.run_settings import OptimizerSettings, RunSettings


def rank_device() -> torch.device:
    """Where this rank computes."""
    return (
        torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        if torch.cuda.is_available()
        else torch.device("cpu")
    )


def has_one_reader(
    run: RunSettings, optimizer: OptimizerSettings, options: Mapping[str, Any], ranks: int, in_4_bits: bool
) -> bool:
    """Whether only rank 0 needs the weights of the model, and all other ranks its structure.

    options: further keys of DeepSpeed's configuration. in_4_bits: each rank reads and rounds such weights itself.
    MiCS divides weights by a class of its own, later.
    """
    uses_mics = options.get("zero_optimization", {}).get("mics_shard_size", -1) > 0
    return ranks > 1 and not in_4_bits and not (uses_mics and effective_stage(run, optimizer) == 3)


def give_weights(
    model: nn.Module, dtype: torch.dtype, device: torch.device, config: Mapping[str, Any] | None = None
) -> None:
    """Give all ranks the parameters and buffers of rank 0, on `device`, one after the other.

    model: on the other ranks, it may be on the meta device. Its parameters stay the same objects. dtype: of parameters
    that are no integers, from now on. config: of DeepSpeed for ZeRO-3, under which each rank keeps a share of every
    parameter; None: every rank keeps all of them. Which of them are trained, and the dtypes of buffers, are those of
    rank 0.
    Every rank must call it. Raises RuntimeError on all of them unless they have the same structure.
    """
    wanted, is_same = _structure_of_first_rank(model, device)
    if not is_same:
        raise RuntimeError("the ranks have models of different structures")
    for parameter, (*_, is_trained) in zip(model.parameters(), wanted.parameters, strict=True):
        parameter.requires_grad_(is_trained)
    convert: Any = None
    # Each parameter is whole for a moment, in the same place: memory that is given back one by one has holes.
    largest = max((parameter.numel() for parameter in model.parameters()), default=0) if config is not None else 0
    place = torch.empty(largest, dtype=dtype, device=device)
    for parameter in model.parameters():
        is_float = parameter.is_floating_point()
        values = place[: parameter.numel()].view(parameter.shape) if config is not None and is_float else None
        _materialise(parameter, dtype if is_float else parameter.dtype, device, values)
        if config is None:
            parameter.data = _of_first_rank(parameter.data)
        elif convert is None:
            convert = _divided(parameter, config, dtype)
        else:
            convert(param_list=[parameter])
    for (module, name), (*_, kind) in zip(_places_of_buffers(model), wanted.buffers, strict=True):
        buffer = module._buffers[name]
        assert buffer is not None
        is_empty = buffer.is_meta
        values = torch.empty(buffer.shape, dtype=kind, device=device) if is_empty else buffer.detach().to(device, kind)
        module._buffers[name] = _of_first_rank(values)


def has_same_structure(model: nn.Module, device: torch.device) -> bool:
    """Whether the models of all ranks have the same parameters and buffers, by name and shape. All must call it.

    The files of a model may say otherwise than its configuration: weights that it ties may be two.
    """
    return _structure_of_first_rank(model, device)[1]


class _Structure(NamedTuple):
    """What a model consists of. parameters: name, shape and whether it is trained. buffers: name, shape and dtype."""

    parameters: list[tuple[str, tuple[int, ...], bool]]
    buffers: list[tuple[str, tuple[int, ...], torch.dtype]]

    @classmethod
    def of(cls, model: nn.Module) -> "_Structure":
        parameters = [(key, tuple(each.shape), each.requires_grad) for key, each in model.named_parameters()]
        buffers = [(name, module._buffers[name]) for module, name in _places_of_buffers(model)]
        return cls(parameters, [(name, tuple(each.shape), each.dtype) for name, each in buffers if each is not None])

    def matches(self, other: "_Structure") -> bool:
        """Whether names and shapes are the same."""
        return [each[:2] for each in (*self.parameters, *self.buffers)] == [
            each[:2] for each in (*other.parameters, *other.buffers)
        ]


def _places_of_buffers(model: nn.Module) -> list[tuple[nn.Module, str]]:
    """Each module and the name of a buffer of its own."""
    return [(module, name) for module in model.modules() for name, _ in module.named_buffers(recurse=False)]


def _structure_of_first_rank(model: nn.Module, device: torch.device) -> tuple[_Structure, bool]:
    """That of rank 0, and whether the models of all ranks match it."""
    own = _Structure.of(model)
    found = [own if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(found, 0, device=device)
    assert found[0] is not None
    is_same = torch.tensor(int(found[0].matches(own)), device=device)
    dist.all_reduce(is_same, dist.ReduceOp.MIN)
    return found[0], bool(is_same)


def checksum_of_first_rank(model: nn.Module, device: torch.device) -> str | None:
    """The checksum of the frozen weights that rank 0 has, on every rank."""
    found = [frozen_checksum(model) if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(found, 0, device=device)
    return found[0]


def _divided(parameter: nn.Parameter, config: Mapping[str, Any], dtype: torch.dtype) -> Any:
    """Divide the first parameter. Returns the function of DeepSpeed that divides others as this one."""
    deepspeed.zero.Init(module=nn.ParameterList([parameter]), config_dict_or_path=dict(config), dtype=dtype)
    return parameter.convert_to_zero_parameters  # type: ignore[attr-defined]


def _materialise(parameter: nn.Parameter, dtype: torch.dtype, device: torch.device, place: Tensor | None) -> None:
    """Give a parameter its dtype, its device and, if it has none, memory. place: for its values; None: anywhere."""
    if not parameter.is_meta:
        parameter.data = parameter.data.to(device, dtype) if place is None else place.copy_(parameter.data)
        return
    place = torch.empty(parameter.shape, dtype=dtype, device=device) if place is None else place
    filled = nn.Parameter(place, requires_grad=parameter.requires_grad)
    torch.utils.swap_tensors(parameter, filled)  # type: ignore[no-untyped-call]


def _of_first_rank(values: Tensor) -> Tensor:
    """The tensor with the values of rank 0: the same one if it lies in one piece."""
    flat = values.contiguous().view(-1)
    dist.broadcast(flat.view(torch.uint8), 0)
    if not values.is_contiguous():
        values = flat.view(values.shape)
    return values
