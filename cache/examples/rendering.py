"""Render examples as token ids and segments, with a tokenizer that the caller has loaded.

The prompt is rendered and encoded separately, so that training and generation use the same ids for it.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cache.errors import InputError
from cache.examples.assistant_turns import marks_turns, split_turns
from cache.examples.example import Example, Segment, TokenizedExample
from cache.examples.tokenizers import Tokenizer

TargetsOf = Literal["assistant", "all"]
# Keys of a turn that only a chat template can express.
NEEDS_TEMPLATE = ("tool_calls", "reasoning_content")


def render_prompt(example: Example, tokenizer: Tokenizer) -> TokenizedExample:
    """Render the prompt alone, up to the start of the assistant's turn. The prompt of a trace is all but its last turn.

    Raises InputError, with the id of the example, if the template or the tokenizer cannot express it.
    """
    prompt = replace(example, messages=example.messages[:-1]) if example.is_trace else example
    if tokenizer.chat_template is None:
        # A base model has no turns: the prompt is the contents, with the special tokens that its tokenizer adds.
        contents = _contents(prompt)
        text = "\n".join([*contents, ""] if example.is_trace else contents)
        tokens, _ = _encode(prompt, tokenizer, text)
    else:
        text = _apply_template(prompt, tokenizer, prompt.messages, tokenize=False, add_generation_prompt=True)
        tokens, _ = _encode(prompt, tokenizer, text, add_special_tokens=False)
    return TokenizedExample(prompt, tokens, np.full(len(tokens), Segment.PROMPT, dtype=np.uint8))


def render(example: Example, tokenizer: Tokenizer, targets_of: TargetsOf = "assistant") -> TokenizedExample:
    """Render prompt, rationale, response and the end-of-sequence token. A token belongs to the segment it starts in.

    A trace is rendered by the chat template alone, including its end. Every turn of the assistant is a response;
    without a template only the last turn is.
    targets_of: whose tokens get targets. With "all" a trace may have no token of the assistant.
    Raises InputError, with the id of the example, if the template or the tokenizer cannot express it.
    """
    if example.is_trace and tokenizer.chat_template is not None:
        tokenized = _render_trace(example, tokenizer)
    else:
        tokenized = _render_response(example, tokenizer)
    if example.is_trace and targets_of == "assistant" and tokenized.prompt_length == len(tokenized.tokens):
        raise InputError(
            f"example {example.id}: no token of its chat is the assistant's; give a last turn with content, or a chat "
            "template whose {% generation %} is around the text of the assistant"
        )
    return tokenized


def _render_response(example: Example, tokenizer: Tokenizer) -> TokenizedExample:
    prompt = render_prompt(example, tokenizer)
    text = _contents(example)[-1] if example.is_trace else example.rationale + example.response
    ids, encoded = _encode(example, tokenizer, text, add_special_tokens=False, return_offsets_mapping=True)
    starts = np.asarray([start for start, _ in encoded["offset_mapping"]], dtype=np.int64)
    segments = np.where(starts < len(example.rationale), Segment.RATIONALE, Segment.RESPONSE).astype(np.uint8)
    if tokenizer.eos_token_id is not None:
        ids = np.append(ids, np.uint32(tokenizer.eos_token_id))
        segments = np.append(segments, np.uint8(Segment.RESPONSE))
    return TokenizedExample(example, np.concatenate([prompt.tokens, ids]), np.concatenate([prompt.segments, segments]))


def _render_trace(example: Example, tokenizer: Tokenizer) -> TokenizedExample:
    """Render a chat by its template. It is encoded as a whole if the template marks turns, otherwise piece by piece."""
    text = _apply_template(example, tokenizer, example.messages, tokenize=False)
    if marks_turns(tokenizer.get_chat_template(tools=example.tools or None)):
        tokens, encoded = _encode(example, tokenizer, text, add_special_tokens=False, return_offsets_mapping=True)
        options = {"tokenize": True, "return_dict": True, "return_assistant_tokens_mask": True}
        is_assistant = list(_apply_template(example, tokenizer, example.messages, **options)["assistant_masks"])
        spans = encoded["offset_mapping"]
        for i in range(1, len(is_assistant)):
            # A character may have several tokens, but the mask of Transformers ends with the first of them.
            is_assistant[i] = is_assistant[i] or (is_assistant[i - 1] and spans[i] == spans[i - 1])
    else:

        def text_of(messages: Sequence[dict[str, Any]], prompted: bool) -> str:
            options = {"tokenize": False, "add_generation_prompt": prompted}
            return str(_apply_template(example, tokenizer, messages, **options))

        tokens, is_assistant = np.zeros(0, np.uint32), []
        for piece, by_assistant in split_turns(example, text_of):
            ids, _ = _encode(example, tokenizer, piece, add_special_tokens=False)
            tokens, is_assistant = np.concatenate([tokens, ids]), is_assistant + [by_assistant] * len(ids)
    segments = np.where(np.asarray(is_assistant, np.bool_), Segment.RESPONSE, Segment.PROMPT).astype(np.uint8)
    return TokenizedExample(example, tokens, segments)


def _apply_template(example: Example, tokenizer: Tokenizer, messages: Sequence[dict[str, Any]], **options: Any) -> Any:
    if example.tools:
        options["tools"] = list(example.tools)
    try:
        return tokenizer.apply_chat_template(list(messages), **options)
    except Exception as error:  # templates raise exceptions of many types
        raise InputError(f"example {example.id}: the chat template cannot render its messages: {error}") from error


def _contents(example: Example) -> list[str]:
    """The text of each turn, for a tokenizer without a template. Raises InputError if that would lose something."""
    special = {name for turn in example.messages for name in NEEDS_TEMPLATE if turn.get(name)}
    if lost := sorted(special | ({"tools"} if example.tools else set())):
        raise InputError(
            f"example {example.id}: has {lost[0]!r}, which is lost without a chat template; use a tokenizer with one"
        )
    return [turn.get("content") or "" for turn in example.messages]


def _encode(example: Example, tokenizer: Tokenizer, text: str, **options: Any) -> tuple[npt.NDArray[np.uint32], Any]:
    """Ids uint32 [n] of a text, and all output of the tokenizer. Raises InputError if it has no ids for the text."""
    try:
        text.encode()  # a lone surrogate cannot be encoded; tokenizers raise different exceptions for it
        encoded = tokenizer(text, **options)
    except Exception as error:  # tokenizers raise bare exceptions
        raise InputError(f"example {example.id}: the tokenizer cannot encode its text: {error}") from error
    ids = encoded["input_ids"]
    content_ids = set(ids) - {tokenizer.bos_token_id, tokenizer.eos_token_id}
    if None in ids or (text.strip() and content_ids == {tokenizer.unk_token_id}):
        raise InputError(
            f"example {example.id}: the tokenizer has no tokens for {text[:40]!r}; leave it out, or use another teacher"
        )
    return np.asarray(ids, dtype=np.uint32), encoded
