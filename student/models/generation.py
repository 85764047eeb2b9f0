"""Greedy texts of a model after prompts, by Transformers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel

from cache.examples.tokenizers import decode
from cache.progress import Progress, no_progress
from student.models.generation_settings import stop_ids
from student.models.registry import kind_of

# What a model's settings of generation say of tokens.
TOKEN_SETTINGS = (
    *("bos_token_id", "decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id"),
    *("suppress_tokens", "begin_suppress_tokens", "bad_words_ids"),
)


def fits_positions(config: PreTrainedConfig, prompt_length: int, max_new_tokens: int) -> bool:
    """Whether a model has the positions for a prompt and its longest answer.

    For an encoder-decoder they are sequences of their own. A model without a stated number has any.
    """
    positions = int(getattr(config.get_text_config(), "max_position_embeddings", None) or 0)
    longest = sum if kind_of(config).learns_prompts else max
    return not positions or longest((prompt_length, max_new_tokens)) <= positions


# Not in inference mode: under ZeRO-3 the weights that are gathered here are trained on afterwards.
@torch.no_grad()
def generate_texts(
    model: PreTrainedModel,
    tokenizer: Any,
    prompts: Sequence[npt.NDArray[np.uint32]],
    max_new_tokens: int,
    batch_size: int,
    progress: Progress = no_progress,
    device: torch.device | None = None,
    in_step: bool = False,
) -> list[str]:
    """Continue each prompt greedily, up to a token that ends an answer (student.models.generation_settings.stop_ids).

    prompts: token ids of each, uint32 [n]. device: where the inputs go; that of the model if not given. in_step: all
    ranks make the same number of forward passes, which ZeRO-3 needs.
    Returns texts without special tokens, in the order of `prompts`.
    """
    texts: list[str] = []
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    kind, ends = kind_of(model.config), stop_ids(model.generation_config, tokenizer)
    device = model.device if device is None else device
    for first in range(0, len(prompts), batch_size):
        chunk = prompts[first : first + batch_size]
        tokens = [prompt.astype(np.int64) for prompt in chunk]
        longest = max(map(len, tokens))
        ids = torch.full((len(chunk), longest), pad)
        mask = torch.zeros(len(chunk), longest, dtype=torch.int64)
        for row, prompt in enumerate(tokens):
            # Padding on the left: all prompts end where the answers start. An encoder is padded on the right.
            start = longest - len(prompt) if kind.pads_prompts_left else 0
            ids[row, start : start + len(prompt)] = torch.from_numpy(prompt)
            mask[row, start : start + len(prompt)] = 1
        with _only_greedy(model, max_new_tokens, pad, ends):
            output = model.generate(ids.to(device), attention_mask=mask.to(device), synced_gpus=in_step)
        begin = kind.answer_start(longest)
        texts += [decode(_until(row[begin:].cpu().numpy(), ends), tokenizer) for row in output]
        progress(len(texts), len(prompts))
    return texts


@contextmanager
def _only_greedy(model: PreTrainedModel, max_new_tokens: int, pad: int, ends: list[int]) -> Iterator[None]:
    """Take all but tokens out of the model's own settings of generation, for a while.

    They may ask for samples, beams, penalties, contrastive search or other results, and Transformers fills in what a
    caller does not give.
    """
    own = model.generation_config
    tokens = {name: getattr(own, name, None) for name in TOKEN_SETTINGS}
    tokens |= {"pad_token_id": pad, "eos_token_id": ends}
    try:
        model.generation_config = GenerationConfig(do_sample=False, max_new_tokens=max_new_tokens, **tokens)
        yield
    finally:
        model.generation_config = own


def _until(tokens: npt.NDArray[np.int64], ends: list[int]) -> npt.NDArray[np.uint32]:
    """The tokens before the first one that ends an answer. A tokenizer need not call it special."""
    positions = np.flatnonzero(np.isin(tokens, ends))
    return tokens[: positions[0] if len(positions) else None].astype(np.uint32)
