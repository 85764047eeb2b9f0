"""Examples to token ids and segments, through a tokenizer that the caller brings. Imports no tokenizer library.

The prompt is rendered and encoded on its own, so that the ids a model is trained on are the ids it is prompted with.
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
# What a turn may hold that a text without turns has no place for.
NEEDS_TEMPLATE = ("tool_calls", "reasoning_content")


def render_prompt(example: Example, tokenizer: Tokenizer) -> TokenizedExample:
    """The prompt alone, ending where the assistant starts to speak. Of a trace, all but its last turn.

    Raises InputError naming the example where the template or the tokenizer cannot express it.
    """
    asked = replace(example, messages=example.messages[:-1]) if example.is_trace else example
    if tokenizer.chat_template is None:
        # A base model has no turns: the contents are its text, with the special tokens that its tokenizer adds.
        contents = _contents(asked)
        text = "\n".join([*contents, ""] if example.is_trace else contents)
        tokens, _ = _encode(asked, tokenizer, text)
    else:
        text = _apply_template(asked, tokenizer, asked.messages, tokenize=False, add_generation_prompt=True)
        tokens, _ = _encode(asked, tokenizer, text, add_special_tokens=False)
    return TokenizedExample(asked, tokens, np.full(len(tokens), Segment.PROMPT, dtype=np.uint8))


def render(example: Example, tokenizer: Tokenizer, targets_of: TargetsOf = "assistant") -> TokenizedExample:
    """Prompt, rationale, response and the end-of-sequence token. A token belongs to the segment it starts in.

    A trace is what the chat template makes of it, every turn of the assistant a response, and ends as the template
    ends it. Without a template only its last turn is the response.
    targets_of: whose tokens will be asked about; with "all" a trace in which the assistant says nothing will do.
    Raises InputError naming the example where the template or the tokenizer cannot express it.
    """
    if example.is_trace and tokenizer.chat_template is not None:
        tokenized = _render_trace(example, tokenizer)
    else:
        tokenized = _render_response(example, tokenizer)
    if example.is_trace and targets_of == "assistant" and tokenized.prompt_length == len(tokenized.tokens):
        raise InputError(
            f"example {example.id}: no token of its chat is the assistant's; give a last turn with content, or a chat "
            "template whose {% generation %} is around what the assistant says"
        )
    return tokenized


def _render_response(example: Example, tokenizer: Tokenizer) -> TokenizedExample:
    prompt = render_prompt(example, tokenizer)
    text = _contents(example)[-1] if example.is_trace else example.rationale + example.response
    ids, encoded = _encode(example, tokenizer, text, add_special_tokens=False, return_offsets_mapping=True)
    starts = np.asarray([start for start, _ in encoded["offset_mapping"]], dtype=np.int64)
    spoken = np.where(starts < len(example.rationale), Segment.RATIONALE, Segment.RESPONSE).astype(np.uint8)
    if tokenizer.eos_token_id is not None:
        ids = np.append(ids, np.uint32(tokenizer.eos_token_id))
        spoken = np.append(spoken, np.uint8(Segment.RESPONSE))
    return TokenizedExample(example, np.concatenate([prompt.tokens, ids]), np.concatenate([prompt.segments, spoken]))


def _render_trace(example: Example, tokenizer: Tokenizer) -> TokenizedExample:
    """A chat through its template: encoded whole where the template marks turns, else piece by piece."""
    text = _apply_template(example, tokenizer, example.messages, tokenize=False)
    if marks_turns(tokenizer.get_chat_template(tools=example.tools or None)):
        tokens, encoded = _encode(example, tokenizer, text, add_special_tokens=False, return_offsets_mapping=True)
        options = {"tokenize": True, "return_dict": True, "return_assistant_tokens_mask": True}
        said = list(_apply_template(example, tokenizer, example.messages, **options)["assistant_masks"])
        places = encoded["offset_mapping"]
        for i in range(1, len(said)):
            # The mask ends with the first token of its last character, which may have several.
            said[i] = said[i] or (said[i - 1] and places[i] == places[i - 1])
    else:

        def text_of(messages: Sequence[dict[str, Any]], prompted: bool) -> str:
            options = {"tokenize": False, "add_generation_prompt": prompted}
            return str(_apply_template(example, tokenizer, messages, **options))

        tokens, said = np.zeros(0, np.uint32), []
        for piece, by_assistant in split_turns(example, text_of):
            ids, _ = _encode(example, tokenizer, piece, add_special_tokens=False)
            tokens, said = np.concatenate([tokens, ids]), said + [by_assistant] * len(ids)
    segments = np.where(np.asarray(said, np.bool_), Segment.RESPONSE, Segment.PROMPT).astype(np.uint8)
    return TokenizedExample(example, tokens, segments)


def _apply_template(example: Example, tokenizer: Tokenizer, messages: Sequence[dict[str, Any]], **options: Any) -> Any:
    if example.tools:
        options["tools"] = list(example.tools)
    try:
        return tokenizer.apply_chat_template(list(messages), **options)
    except Exception as error:  # templates raise whatever they like
        raise InputError(f"example {example.id}: the chat template refuses its messages: {error}") from error


def _contents(example: Example) -> list[str]:
    """The text of each turn, for a tokenizer without a template."""
    held = {name for turn in example.messages for name in NEEDS_TEMPLATE if turn.get(name)}
    if lost := sorted(held | ({"tools"} if example.tools else set())):
        raise InputError(
            f"example {example.id}: has {lost[0]!r}, which is lost without a chat template; use a tokenizer with one"
        )
    return [turn.get("content") or "" for turn in example.messages]


def _encode(example: Example, tokenizer: Tokenizer, text: str, **options: Any) -> tuple[npt.NDArray[np.uint32], Any]:
    """Ids uint32 [n] of a text, and all that the tokenizer gave. Raises InputError where it has no ids for it."""
    try:
        text.encode()  # half a surrogate pair is no text; tokenizers say so each in its own way
        encoded = tokenizer(text, **options)
    except Exception as error:  # tokenizers raise bare exceptions
        raise InputError(f"example {example.id}: the tokenizer cannot encode its text: {error}") from error
    ids = encoded["input_ids"]
    meaning = set(ids) - {tokenizer.bos_token_id, tokenizer.eos_token_id}
    if None in ids or (text.strip() and meaning == {tokenizer.unk_token_id}):
        raise InputError(
            f"example {example.id}: the tokenizer has no tokens for {text[:40]!r}; leave it out, or use another teacher"
        )
    return np.asarray(ids, dtype=np.uint32), encoded
