"""The attention implementation of a student, and a stand-in for flash attention where there is no GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import flash_attention_mask
from transformers.modeling_flash_attention_utils import _is_packed_sequence

from cache.errors import InputError

STAND_IN = "logitbank_variable_length"


def uses_flash(name: str | None) -> bool:
    """Whether this is flash attention. It needs a GPU and half precision, and no attention mask."""
    return name is not None and "flash" in name


def set_attention(model: PreTrainedModel, name: str, requested: str | None = None) -> None:
    """Let a model use an attention implementation of Transformers. Raises InputError if model or machine lacks it.

    requested: that of the job, if `name` stands in for it.
    """
    requested = requested or name
    try:
        model.set_attn_implementation(name)
    except (ImportError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"model.attn_implementation = {requested!r}: {reason}") from error
    if model.config._attn_implementation != name:
        raise InputError(
            f"model.attn_implementation = {requested!r}: model type {model.config.model_type!r} has no such attention, "
            f"only {model.config._attn_implementation!r}; leave it out"
        )


@contextmanager
def flash_stand_in(model: PreTrainedModel, requested: str = STAND_IN) -> Iterator[PreTrainedModel]:
    """The model with attention that separates packed sequences as the flash path of Transformers does, on any device.

    That is by the positions that reach the attention, in a batch of one row. Windows and soft-caps are left out.
    requested: the flash attention of the job. Raises InputError if the model's attention cannot be chosen.
    """
    AttentionInterface.register(STAND_IN, separated)
    AttentionMaskInterface.register(STAND_IN, flash_attention_mask)
    before = model.config._attn_implementation
    set_attention(model, STAND_IN, requested)
    try:
        yield model
    finally:
        set_attention(model, before)


def separated(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    position_ids: Tensor | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Causal attention of q [B, H, L, d] and k, v [B, H / groups, L, d], as an implementation of Transformers."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    own = None
    if position_ids is not None and _is_packed_sequence(position_ids, len(query)):
        sequence = (position_ids == 0).cumsum(-1)
        own = (sequence[:, :, None] == sequence[:, None, :]).tril()[:, None]
    attended = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=own, is_causal=own is None, scale=scaling
    )
    return attended.transpose(1, 2).contiguous(), None
