"""Texts to token ids, with offsets. A text that a tokenizer cannot express is refused with the id of the example."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import InputError
from cache.examples.example import Example
from cache.examples.tokenizers import Tokenizer

# Tokenizers of sentence pieces put a space before a text. Behind this character they do not.
NEUTRAL = "\n"
SPACE_MARKS = ("▁", "Ġ")


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids uint32 [n], and the offsets int64 [n] of the first character of each and after its last one."""

    ids: npt.NDArray[np.uint32]
    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]

    def cut(self, first: int, last: int | None = None) -> "Encoded":
        """Tokens first..last."""
        return Encoded(self.ids[first:last], self.starts[first:last], self.ends[first:last])


def encode(example: Example, tokenizer: Tokenizer, text: str, special: bool = False) -> Encoded:
    """Encode a text. special: with the special tokens that the tokenizer adds.

    Raises InputError if the tokenizer has no ids for the text.
    """
    try:
        text.encode()  # a lone surrogate cannot be encoded; tokenizers raise different exceptions for it
        encoded = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)
    except Exception as error:  # tokenizers raise bare exceptions
        raise InputError(f"example {example.id}: the tokenizer cannot encode its text: {error}") from error
    ids = encoded["input_ids"]
    content_ids = set(ids) - {tokenizer.bos_token_id, tokenizer.eos_token_id}
    if None in ids or (text.strip() and content_ids == {tokenizer.unk_token_id}):
        raise InputError(
            f"example {example.id}: the tokenizer has no tokens for {text[:40]!r}; leave it out, or use another teacher"
        )
    spans: Any = np.asarray(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2)
    return Encoded(np.asarray(ids, dtype=np.uint32), spans[:, 0], spans[:, 1])


def encode_prompt(example: Example, tokenizer: Tokenizer, text: str, has_encoder: bool) -> Encoded:
    """Encode a prompt with the special tokens that the tokenizer adds.

    A decoder continues the prompt, so that an end token after it would begin another document: it is removed.
    """
    encoded = encode(example, tokenizer, text, special=True)
    if has_encoder or not _adds_end(example, tokenizer, text, encoded):
        return encoded
    return encoded.cut(0, -1)


def encode_continued(example: Example, tokenizer: Tokenizer, prompt: str, text: str) -> tuple[Encoded, int]:
    """Encode a prompt and the text that continues it, for a decoder, and the number of tokens of the prompt.

    Offsets of the text count from the start of the prompt. The tokens of the prompt are those of `encode_prompt`.
    """
    alone = encode_prompt(example, tokenizer, prompt, has_encoder=False)
    rest = encode(example, tokenizer, text)
    n = len(alone.ids)
    try:
        whole = encode_prompt(example, tokenizer, prompt + text, has_encoder=False)
        if np.array_equal(whole.ids[:n], alone.ids) and (whole.starts[n:] >= len(prompt)).all():
            return whole, n
    except InputError:  # the end of the prompt and the start of the text make a word without an id
        pass
    # A token would span the end of the prompt.
    rest = _without_first_space(example, tokenizer, text, rest)
    ids = np.concatenate([alone.ids, rest.ids])
    starts = np.concatenate([alone.starts, rest.starts + len(prompt)])
    return Encoded(ids, starts, np.concatenate([alone.ends, rest.ends + len(prompt)])), n


def _adds_end(example: Example, tokenizer: Tokenizer, text: str, encoded: Encoded) -> bool:
    """Whether the last token is an end token that is not in the text."""
    end = tokenizer.eos_token_id
    if end is None or not len(encoded.ids) or int(encoded.ids[-1]) != end:
        return False
    if not text and tokenizer.bos_token_id == end:
        return False  # it begins the text
    return _count_last(encoded.ids, end) > _count_last(encode(example, tokenizer, text).ids, end)


def _count_last(ids: npt.NDArray[np.uint32], value: int) -> int:
    """Number of ids at the end that are equal to the value."""
    others = np.flatnonzero(ids != value)
    return len(ids) - 1 - int(others[-1]) if len(others) else len(ids)


def _without_first_space(example: Example, tokenizer: Tokenizer, text: str, encoded: Encoded) -> Encoded:
    """Encode a text that follows another one again, if its encoding begins with a space that the text does not have."""
    names = tokenizer.convert_ids_to_tokens(encoded.ids[:1].tolist())
    if not names or not names[0].startswith(SPACE_MARKS) or text[:1].isspace():
        return encoded
    behind = encode(example, tokenizer, NEUTRAL + text)
    n = int(np.count_nonzero(behind.ends <= len(NEUTRAL)))
    if (behind.starts[n:] < len(NEUTRAL)).any():
        return encoded
    rest = behind.cut(n)
    return Encoded(rest.ids, rest.starts - len(NEUTRAL), rest.ends - len(NEUTRAL))
