"""The texts that a classifier reads: from an example, as tokens, and as padded tensors."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from cache.errors import InputError
from cache.examples.example import Example
from student.classification.settings import ClassSettings
from student.tokenizers.bpe import learn_tokenizer
from student.tokenizers.settings import Algorithm
from student.tokenizers.wordpiece import learn_wordpiece


def input_segments(example: Example, settings: ClassSettings) -> tuple[str, ...]:
    """What a student reads of an example: fields of its metadata, or one segment of turns of its prompt.

    Several turns are joined by line breaks. The last turn of a trace is the answer itself, so it is never part of the
    text. Raises InputError if the metadata has no such field, or something else than a text in it.
    """
    if settings.fields:
        return tuple(_field(example, name) for name in settings.fields)
    prompt = example.messages[:-1] if example.is_trace else example.messages
    texts = [turn.get("content") or "" for turn in prompt]
    return ("\n".join(filter(None, texts)) if settings.input == "all_turns" else "".join(texts[-1:]),)


def learn_input_tokenizer(
    examples: Iterable[Example], settings: ClassSettings, vocab_size: int, algorithm: Algorithm = "byte_bpe"
) -> PreTrainedTokenizerBase:
    """Learn a tokenizer of at most `vocab_size` ids from the texts of the training examples."""
    texts = ("\n".join(input_segments(example, settings)) for example in examples)
    if algorithm == "wordpiece":
        return learn_wordpiece(texts, vocab_size)
    return learn_tokenizer((Example("", ({"role": "user", "content": text},)) for text in texts), vocab_size)


def encode_segments(
    texts: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> tuple[list[npt.NDArray[np.int64]], int]:
    """Token ids of each text, int64 [at most max_tokens], and the number of texts that were too long and are cut.

    The segments of a text are joined by the tokenizer's separator. A tokenizer that begins sequences with a token of
    its own, as those of encoders do, gives this token and a separator at the end. Where a text is too long, its longest
    segment is cut on the right, so that a short answer beside a long question stays whole. Raises InputError if there
    are several segments and the tokenizer has no separator.
    """
    separator = _separator(tokenizer)
    start = [] if tokenizer.cls_token_id is None else [tokenizer.cls_token_id]
    end = [separator] if start and separator is not None else []
    if separator is None and any(len(segments) > 1 for segments in texts):
        raise InputError(
            "classes.fields: the student's tokenizer has neither a separator nor an end token to put between several "
            "fields; give another tokenizer, or one field"
        )
    flat = [segment for segments in texts for segment in segments]
    ids = iter(tokenizer(flat, add_special_tokens=False)["input_ids"] if flat else [])
    encoded, cut = [], 0
    for segments in texts:
        parts = [list(next(ids)) for _ in segments]
        room = max_tokens - len(start) - len(end) - (len(parts) - 1)
        cut += sum(map(len, parts)) > room
        parts = _fit(parts, room)
        joined = start + parts[0]
        for part in parts[1:]:
            joined += [int(separator or 0), *part]
        # A limit below the number of separators cuts them too.
        encoded.append(np.array((joined + end)[:max_tokens], np.int64))
    return encoded, cut


def require_readable(config: PreTrainedConfig, tokens: Sequence[npt.NDArray[np.int64]]) -> None:
    """Raise InputError if a text has more tokens than a classifier with this configuration reads."""
    limit = getattr(config, "max_tokens", None) or getattr(config, "max_position_embeddings", None)
    longest = max(map(len, tokens), default=0)
    if limit is not None and longest > limit:
        raise InputError(
            f"the longest text has {longest:,} tokens, but the model reads {limit}; set "
            f"classes.max_tokens = {limit} to cut longer texts, or use a model that reads more"
        )


def pad_texts(tokens: Sequence[npt.NDArray[np.int64]], pad_id: int) -> tuple[Tensor, Tensor]:
    """input_ids and attention_mask, int64 [B, L], padded on the right to the longest text (at least one token)."""
    lengths = np.array([len(each) for each in tokens])
    mask = np.arange(max(1, lengths.max(initial=0))) < lengths[:, None]
    input_ids = np.full(mask.shape, pad_id, np.int64)
    input_ids[mask] = np.concatenate([np.zeros(0, np.int64), *tokens])
    return torch.from_numpy(input_ids), torch.from_numpy(mask.astype(np.int64))


def _field(example: Example, name: str) -> str:
    value = example.metadata.get(name)
    if not isinstance(value, str):
        known = ", ".join(example.metadata) or "nothing"
        raise InputError(
            f"example {example.id}: classes.fields has {name!r}, and its metadata have no such text (they have {known})"
        )
    return value


def _separator(tokenizer: PreTrainedTokenizerBase) -> int | None:
    for token in (tokenizer.sep_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return None


def _fit(parts: list[list[int]], room: int) -> list[list[int]]:
    """The parts, with the longest one (the first of equal ones) cut again and again until all fit."""
    while sum(map(len, parts)) > max(room, 0):
        longest = max(range(len(parts)), key=lambda i: len(parts[i]))
        others = max((len(part) for i, part in enumerate(parts) if i != longest), default=0)
        excess = sum(map(len, parts)) - max(room, 0)
        parts[longest] = parts[longest][: max(len(parts[longest]) - excess, min(others, len(parts[longest]) - 1))]
    return parts
