"""What a student answers: greedy continuations of the prompts of a store."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from cache.examples.tokenizers import decode
from cache.progress import Progress
from cache.rows.record import Record
from cache.store.logit_store import LogitStore
from student.evaluation.settings import GenerationEvaluation


@torch.inference_mode()
def answer(
    model: PreTrainedModel,
    tokenizer: Any,
    prompts: Sequence[Record],
    settings: GenerationEvaluation,
    progress: Progress,
) -> list[str]:
    """Greedy continuations of the prompts, as text."""
    texts: list[str] = []
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    reads = model.config.is_encoder_decoder
    for first in range(0, len(prompts), settings.batch_size):
        chunk = prompts[first : first + settings.batch_size]
        tokens = [record.tokenized.tokens[: record.tokenized.prompt_length].astype(np.int64) for record in chunk]
        longest = max(map(len, tokens))
        ids = torch.full((len(chunk), longest), pad)
        mask = torch.zeros(len(chunk), longest, dtype=torch.int64)
        for row, prompt in enumerate(tokens):
            # On the left, so that all prompts end where the answers start; an encoder reads from its first place on.
            start = 0 if reads else longest - len(prompt)
            ids[row, start : start + len(prompt)] = torch.from_numpy(prompt)
            mask[row, start : start + len(prompt)] = 1
        written = model.generate(
            ids.to(model.device),
            attention_mask=mask.to(model.device),
            max_new_tokens=settings.max_new_tokens,
            do_sample=False,
            pad_token_id=pad,
            eos_token_id=tokenizer.eos_token_id,
        )
        # A decoder's own start token is no text.
        begin = 1 if reads else longest
        texts += [decode(row[begin:].cpu().numpy().astype(np.uint32), tokenizer) for row in written]
        progress(len(texts), len(prompts))
    return texts


def distinct_prompts(store: LogitStore, count: int) -> list[Record]:
    """The first records of given (not generated) responses with different prompts."""
    picked: dict[bytes, Record] = {}
    for i in np.flatnonzero(store.has_origin(["scored"])):
        if len(picked) == count:
            break
        record = store[int(i)]
        picked.setdefault(record.tokenized.tokens[: record.tokenized.prompt_length].tobytes(), record)
    return list(picked.values())
