"""How examples lie in the rows of a model's input."""

from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedModel

from cache.errors import InputError


@dataclass(frozen=True, slots=True)
class Layout:
    """How examples lie in the rows of a model's input.

    causal: prompt and response in one row; with `pack_to` several examples in rows of that many tokens.
    encoder_decoder: the prompt is read and the response written, after the token `decoder_start`.
    """

    kind: Literal["causal", "encoder_decoder"] = "causal"
    pack_to: int | None = None
    decoder_start: int = 0


CAUSAL = Layout()


def layout_of(model: PreTrainedModel, pack_to: int | None) -> Layout:
    """How the model reads examples. Raises InputError where it cannot read packed ones."""
    if not model.config.is_encoder_decoder:
        return Layout("causal", pack_to)
    if pack_to is not None:
        raise InputError(f"data.pack_to: {model.config.model_type!r} is an encoder-decoder, which cannot be packed")
    start = model.config.decoder_start_token_id
    return Layout("encoder_decoder", None, model.config.pad_token_id if start is None else start)
