"""Attention of ranks that share the tokens of each sequence: each has a part of the tokens, and all of the weights.

Before the attention of a layer, every rank gives the others a part of its heads and gets their tokens for the heads
that it keeps (Ulysses, arXiv 2309.14509, by DeepSpeed); behind it, the other way round. Heads are divided, so their
number must be a multiple of the ranks.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig, PreTrainedModel
from transformers.masking_utils import flash_attention_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from cache.errors import InputError
from student.models.attention.implementations import separated, set_attention, uses_flash

NAME = "logitbank_sequence_parallel"
# Tokens of each rank in the test of a model, and the largest difference as a share of the standard deviation.
PROBE = 8
PROBE_LIMITS = {torch.float32: 1e-3, torch.bfloat16: 0.1}


class SequenceGroup(NamedTuple):
    """Ranks that share sequences. rank: of this process among them. number: which of `groups` it is."""

    handle: Any
    rank: int
    ranks: int
    number: int
    groups: int


def sequence_group(ranks: int) -> SequenceGroup | None:
    """The group of this process, of so many neighbours; None if they are 1. Every rank must call it."""
    if ranks == 1:
        return None
    rank, world = dist.get_rank(), dist.get_world_size()
    groups = [dist.new_group(list(range(start, start + ranks))) for start in range(0, world, ranks)]
    return SequenceGroup(groups[rank // ranks], rank % ranks, ranks, rank // ranks, world // ranks)


def require_divisible(config: PreTrainedConfig, ranks: int) -> None:
    """Raise InputError unless so many ranks can share the sequences of such a model."""
    text = config.get_text_config()
    heads = getattr(text, "num_attention_heads", None)
    if config.is_encoder_decoder or not heads:
        raise InputError(
            f"run.sequence_parallel = {ranks}: is for causal language models with attention, not for model type "
            f"{config.model_type!r}; leave it out"
        )
    kv = getattr(text, "num_key_value_heads", None) or heads
    if heads % ranks or (kv % ranks and ranks % kv):
        raise InputError(
            f"run.sequence_parallel = {ranks}: the model has {heads} attention heads, {kv} of keys and values, and so "
            "many ranks cannot divide them; give a divisor"
        )
    rope = getattr(text, "rope_parameters", None) or {}
    tables = [rope, *(each for each in rope.values() if isinstance(each, dict))]
    if found := {"dynamic", "longrope"} & {str(table.get("rope_type")) for table in tables}:
        raise InputError(
            f"run.sequence_parallel = {ranks}: rotary positions of type {found.pop()!r} depend on the length of the "
            "sequence, of which each rank would see its part; use a model with others, or leave it out"
        )
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
    window = getattr(text, "sliding_window", None) and getattr(text, "use_sliding_window", True)
    if kinds - {"full_attention"} or window or getattr(text, "attention_chunk_size", None):
        raise InputError(
            f"run.sequence_parallel = {ranks}: the attention of model type {config.model_type!r} has windows or layers "
            "of another kind; use a model with full attention, or leave it out"
        )


class _Whole(torch.nn.Module):
    """Attention over whole sequences with a part of the heads. q: [B, L, h, d]; k, v: [B, L, h / groups, d]."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._attend: Any = ALL_ATTENTION_FUNCTIONS[name] if uses_flash(name) else separated

    def forward(self, query: Tensor, key: Tensor, value: Tensor, **others: Any) -> Tensor:
        heads = [each.transpose(1, 2) for each in (query, key, value)]
        attended: Tensor = self._attend(others.pop("module"), *heads, None, **others)[0]
        return attended  # [B, L, h, d]


def share_sequences(model: PreTrainedModel, group: SequenceGroup) -> None:
    """Let the model attend over the parts of the group. Its positions must be given, those of the whole sequence.

    Raises InputError if the attention of the model cannot be replaced.
    """
    from deepspeed.sequence.layer import DistributedAttention  # here: a driver that plans needs no DeepSpeed

    attention = DistributedAttention(_Whole(model.config._attn_implementation), group.handle, 2, 1)

    def attend(
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor | None = None,
        **others: Any,
    ) -> tuple[Tensor, None]:
        if attention_mask is not None:
            raise InputError(
                f"run.sequence_parallel: model type {model.config.model_type!r} gives its attention a mask of its own, "
                "which would have no effect; leave it out, or use a model of another family"
            )
        if position_ids is None:
            raise InputError(
                f"run.sequence_parallel: model type {model.config.model_type!r} does not tell its attention the "
                "positions of the tokens; leave it out, or use a model of another family"
            )
        positions = [torch.empty_like(position_ids) for _ in range(group.ranks)]
        dist.all_gather(positions, position_ids.contiguous(), group=group.handle)
        times = max(1, group.ranks // key.shape[1])
        parts = [query, key.repeat_interleave(times, 1), value.repeat_interleave(times, 1)]
        parts = [each.transpose(1, 2).contiguous() for each in parts]
        whole = {"module": module, "position_ids": torch.cat(positions, 1), **others}
        return attention(*parts, 0, None, **whole), None

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, flash_attention_mask)
    try:
        set_attention(model, NAME)
    except InputError as error:
        raise InputError(
            f"run.sequence_parallel = {group.ranks}: the attention of model type {model.config.model_type!r} cannot be "
            "replaced; leave it out, or use a model of another family"
        ) from error


@contextmanager
def alone(model: PreTrainedModel, name: str) -> Iterator[None]:
    """Let the model attend by itself for a while, such as to generate. name: its own attention."""
    shared = model.config._attn_implementation
    set_attention(model, name)
    try:
        yield
    finally:
        set_attention(model, shared)


@torch.no_grad()
def refuse_unsharable(model: PreTrainedModel, group: SequenceGroup, name: str, device: torch.device) -> None:
    """Raise InputError unless parts of a sequence get the hidden states of the whole. Every rank must call it.

    name: the model's own attention. Random tokens on the device of the rank, also where ZeRO-3 has divided the weights.
    """
    length = PROBE * group.ranks
    known = min(100, model.get_input_embeddings().num_embeddings)
    ids = torch.randint(known, (1, length), generator=torch.Generator().manual_seed(0)).to(device)
    positions = torch.arange(length, device=device)[None]
    part = slice(group.rank * PROBE, (group.rank + 1) * PROBE)
    inputs = {"input_ids": ids[:, part], "position_ids": positions[:, part], "use_cache": False}
    found = model.base_model(**inputs).last_hidden_state
    with alone(model, name):
        wanted = model.base_model(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state[:, part]
    difference = ((found - wanted).abs().max() / wanted.std()).float()
    dist.all_reduce(difference, dist.ReduceOp.MAX)
    if not difference < PROBE_LIMITS.get(found.dtype, 0.1):
        raise InputError(
            f"run.sequence_parallel = {group.ranks}: model type {model.config.model_type!r} gives a part of a sequence "
            f"other hidden states than the whole (by {float(difference):.1e} of their deviation); leave it out"
        )
