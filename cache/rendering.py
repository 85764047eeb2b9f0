"""Examples to token ids and segments, through a tokenizer that the caller brings. Imports no tokenizer library.

The prompt is rendered and encoded on its own, so that the ids a model is trained on are the ids it is prompted with.
"""

from bisect import bisect_left
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cache.documents import digest
from cache.errors import InputError
from cache.example import Example, Segment, TokenizedExample


class Tokenizer(Protocol):
    """What is used of a Hugging Face fast tokenizer."""

    chat_template: Any
    eos_token_id: Any

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any: ...
    def __call__(self, text: str, **options: Any) -> Any: ...
    def decode(self, token_ids: Any, **options: Any) -> Any: ...


def render_prompt(example: Example, tokenizer: Tokenizer) -> TokenizedExample:
    """The prompt alone, ending where the assistant starts to speak."""
    if tokenizer.chat_template is None:
        # A base model has no turns: the contents are its text, with the special tokens that its tokenizer adds.
        text = "\n".join(turn["content"] for turn in example.messages)
        ids = tokenizer(text)["input_ids"]
    else:
        try:
            text = tokenizer.apply_chat_template(list(example.messages), tokenize=False, add_generation_prompt=True)
        except Exception as error:  # templates raise whatever they like
            raise InputError(f"example {example.id}: the chat template refuses its messages: {error}") from error
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    tokens = np.asarray(ids, dtype=np.uint32)
    return TokenizedExample(example, tokens, np.full(len(tokens), Segment.PROMPT, dtype=np.uint8))


def render(example: Example, tokenizer: Tokenizer) -> TokenizedExample:
    """Prompt, rationale, response and the end-of-sequence token. A token belongs to the segment it starts in."""
    prompt = render_prompt(example, tokenizer)
    text = example.rationale + example.response
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    starts = np.asarray([start for start, _ in encoded["offset_mapping"]], dtype=np.int64)
    spoken = np.where(starts < len(example.rationale), Segment.RATIONALE, Segment.RESPONSE).astype(np.uint8)
    ids = np.asarray(encoded["input_ids"], dtype=np.uint32)
    if tokenizer.eos_token_id is not None:
        ids = np.append(ids, np.uint32(tokenizer.eos_token_id))
        spoken = np.append(spoken, np.uint8(Segment.RESPONSE))
    return TokenizedExample(example, np.concatenate([prompt.tokens, ids]), np.concatenate([prompt.segments, spoken]))


def split_response(tokens: npt.NDArray[np.uint32], tokenizer: Tokenizer, marker: str) -> npt.NDArray[np.uint8]:
    """Segments [n] of a response that a model wrote: rationale before the first `marker`, response from there on.

    Without the marker all of it is response.
    """
    segments = np.full(len(tokens), Segment.RESPONSE, dtype=np.uint8)
    where = decode(tokens, tokenizer).find(marker) if marker else -1
    if where > 0:
        # The length of the decoded prefix grows with the number of tokens, so the boundary can be bisected.
        start = bisect_left(range(len(tokens)), where, key=lambda end: len(decode(tokens[:end], tokenizer)))
        segments[:start] = Segment.RATIONALE
    return segments


def decode(tokens: npt.NDArray[np.uint32], tokenizer: Tokenizer) -> str:
    """Text of token ids, special tokens left out."""
    return str(tokenizer.decode(tokens.tolist(), skip_special_tokens=True))


def tokenizer_digest(tokenizer: Any) -> str:
    """Hash of what turns text into ids: two tokenizers with the same one give the same ids."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise InputError(
            f"{type(tokenizer).__name__} is a slow tokenizer without offsets; use a fast one (tokenizer.json)"
        )
    return digest(backend.to_str())
