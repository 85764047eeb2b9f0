"""A check before the first step: no example is longer than the model has positions."""

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedConfig

from cache.errors import InputError
from student.data.sources import Examples
from student.models.registry import kind_of

BLOCK = 256


def require_positions(config: PreTrainedConfig, source: Examples, name: str, fix: str) -> None:
    """Raise InputError if an example has more tokens in one sequence than the model has positions.

    A model with learned positions would fail at the step that meets such an example; one with rotary positions would
    compute where it was never meant to work. For an encoder-decoder, prompt and response are sequences of their own.
    name: of the examples; fix: what to do, with {limit}; both for the message.
    """
    limit = int(getattr(config.get_text_config(), "max_position_embeddings", None) or 0)
    if limit <= 0:  # the model has no such limit
        return
    lengths = _longest_sequences(config, source, np.flatnonzero(source.tokens > limit))
    if count := int(np.count_nonzero(lengths > limit)):
        raise InputError(
            f"{count:,} of {len(source):,} {name} examples are longer than the {limit:,} positions of model type "
            f"{config.model_type!r}; the longest has {lengths.max():,} tokens; {fix.format(limit=limit)}, or use a "
            "model with more positions (max_position_embeddings)"
        )


def _longest_sequences(
    config: PreTrainedConfig, source: Examples, examples: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Tokens of the longest sequence that the model reads or writes of each of the examples, int64."""
    kind = kind_of(config)
    if kind.learns_prompts:  # prompt and response are one sequence
        return source.tokens[examples]
    blocks = (examples[start : start + BLOCK].tolist() for start in range(0, len(examples), BLOCK))
    return np.array([kind.longest_sequence(window) for block in blocks for window in source.read(block)], np.int64)
