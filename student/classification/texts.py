"""The texts that a classifier reads: from an example, as tokens, and as padded tensors."""

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from cache.errors import InputError
from cache.examples.example import Example
from student.classification.settings import ClassSettings
from student.tokenizers.bpe import learn_tokenizer


def input_text(example: Example, turns: Literal["last_turn", "all_turns"]) -> str:
    """The text of an example's prompt: its last turn, or all turns joined by line breaks.

    The last turn of a trace is the answer itself, so it is never part of the text.
    """
    prompt = example.messages[:-1] if example.is_trace else example.messages
    texts = [turn.get("content") or "" for turn in prompt]
    return "\n".join(filter(None, texts)) if turns == "all_turns" else "".join(texts[-1:])


def learn_input_tokenizer(
    examples: Iterable[Example], settings: ClassSettings, vocab_size: int
) -> PreTrainedTokenizerBase:
    """Learn a byte-level BPE of at most `vocab_size` ids from the texts of the training examples."""
    texts = (input_text(example, settings.input) for example in examples)
    return learn_tokenizer((Example("", ({"role": "user", "content": text},)) for text in texts), vocab_size)


def require_readable(config: PreTrainedConfig, tokens: Sequence[npt.NDArray[np.int64]]) -> None:
    """Raise InputError if a text has more tokens than a classifier with this configuration reads."""
    limit = getattr(config, "max_tokens", None)
    longest = max(map(len, tokens), default=0)
    if limit is not None and longest > limit:
        raise InputError(
            f"the longest text has {longest:,} tokens, but the model reads max_tokens = {limit}; set "
            f"classes.max_tokens = {limit} to cut longer texts, or use a model that reads more"
        )


def pad_texts(tokens: Sequence[npt.NDArray[np.int64]], pad_id: int) -> tuple[Tensor, Tensor]:
    """input_ids and attention_mask, int64 [B, L], padded on the right to the longest text (at least one token)."""
    lengths = np.array([len(each) for each in tokens])
    mask = np.arange(max(1, lengths.max(initial=0))) < lengths[:, None]
    input_ids = np.full(mask.shape, pad_id, np.int64)
    input_ids[mask] = np.concatenate([np.zeros(0, np.int64), *tokens])
    return torch.from_numpy(input_ids), torch.from_numpy(mask.astype(np.int64))
