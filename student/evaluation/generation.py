"""Greedy answers of a student to prompts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

from cache.examples.tokenizers import decode
from cache.progress import Progress
from student.evaluation.settings import AnswerSettings
from student.models.generation_settings import stop_ids
from student.models.registry import kind_of


@torch.inference_mode()
def generate_answers(
    model: PreTrainedModel,
    tokenizer: Any,
    prompts: Sequence[npt.NDArray[np.uint32]],
    settings: AnswerSettings,
    progress: Progress,
) -> list[str]:
    """Continue each prompt greedily, up to a token that ends an answer (student.models.generation_settings.stop_ids).

    prompts: token ids of each, uint32 [n]. Returns texts without special tokens, in the order of `prompts`.
    """
    texts: list[str] = []
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    kind, ends = kind_of(model.config), stop_ids(model.generation_config, tokenizer)
    for first in range(0, len(prompts), settings.batch_size):
        chunk = prompts[first : first + settings.batch_size]
        tokens = [prompt.astype(np.int64) for prompt in chunk]
        longest = max(map(len, tokens))
        ids = torch.full((len(chunk), longest), pad)
        mask = torch.zeros(len(chunk), longest, dtype=torch.int64)
        for row, prompt in enumerate(tokens):
            # Padding on the left: all prompts end where the answers start. An encoder is padded on the right.
            start = longest - len(prompt) if kind.pads_prompts_left else 0
            ids[row, start : start + len(prompt)] = torch.from_numpy(prompt)
            mask[row, start : start + len(prompt)] = 1
        output = model.generate(
            ids.to(model.device),
            attention_mask=mask.to(model.device),
            max_new_tokens=settings.max_new_tokens,
            do_sample=False,
            num_beams=1,
            pad_token_id=pad,
            eos_token_id=ends,
        )
        begin = kind.answer_start(longest)
        texts += [decode(_until(row[begin:].cpu().numpy(), ends), tokenizer) for row in output]
        progress(len(texts), len(prompts))
    return texts


def _until(tokens: npt.NDArray[np.int64], ends: list[int]) -> npt.NDArray[np.uint32]:
    """The tokens before the first one that ends an answer. A tokenizer need not call it special."""
    positions = np.flatnonzero(np.isin(tokens, ends))
    return tokens[: positions[0] if len(positions) else None].astype(np.uint32)
