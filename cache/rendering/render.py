"""Render examples as token ids and segments, with a tokenizer that the caller has loaded.

With a chat template an example is the chat that the template makes of it, its response being the last turn, and the
token ids are those of the whole text. Without a template the response continues the contents of the turns.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cache.errors import InputError
from cache.examples.example import Example, Segment, TokenizedExample
from cache.examples.tokenizers import Tokenizer
from cache.rendering.assistant_turns import marks_turns
from cache.rendering.chat_layout import lay_out, loses_thoughts
from cache.rendering.chat_template import ROLES, ChatText
from cache.rendering.encoding import Encoded, encode, encode_continued, encode_prompt
from cache.rendering.prompt_form import DEFAULT_FORM, PromptForm

TargetsOf = Literal["assistant", "all"]
# Keys of a turn that only a chat template can express.
NEEDS_TEMPLATE = ("tool_calls", "reasoning_content")


def render_prompt(example: Example, tokenizer: Tokenizer, form: PromptForm = DEFAULT_FORM) -> TokenizedExample:
    """Render the prompt alone, up to the start of the assistant's text. The prompt of a trace is all but its last turn.

    An example with a response whose messages end with the assistant has the start of the answer in its prompt.
    Raises InputError, with the id of the example, if the template or the tokenizer cannot express it.
    """
    prompt = replace(example, messages=example.messages[:-1]) if example.is_trace else example
    if tokenizer.chat_template is None:
        encoded = encode_prompt(example, tokenizer, _plain_prompt(example), form.has_encoder)
    else:
        encoded = encode(prompt, tokenizer, _prompt_text(prompt, ChatText(prompt, tokenizer, form)))
    return TokenizedExample(prompt, encoded.ids, np.full(len(encoded.ids), Segment.PROMPT, dtype=np.uint8))


def prompt_tokens(example: Example, tokenizer: Tokenizer, form: PromptForm = DEFAULT_FORM) -> npt.NDArray[np.uint32]:
    """Tokens of an example's prompt, uint32 [n], up to where the assistant's text begins. A response is ignored."""
    prompt = example if example.is_trace else replace(example, rationale="", response="")
    return render_prompt(prompt, tokenizer, form).tokens


def render(
    example: Example, tokenizer: Tokenizer, targets_of: TargetsOf = "assistant", form: PromptForm = DEFAULT_FORM
) -> TokenizedExample:
    """Render prompt, rationale, response and the end of the turn, or the end token if there is no chat template.

    A token belongs to the segment of its first character; one that begins in the prompt and ends in the response, to
    the response. A trace is rendered by the chat template alone. Every turn of the assistant in it is a response;
    without a template only the last turn is.
    targets_of: whose tokens get targets. With "all" a trace may have no token of the assistant.
    Raises InputError, with the id of the example, if the template or the tokenizer cannot express it.
    """
    if tokenizer.chat_template is None:
        tokenized = _render_plain(example, tokenizer, form)
    elif example.is_trace:
        tokenized = _render_trace(example, tokenizer, form)
    else:
        tokenized = _render_response(example, tokenizer, form)
    if example.is_trace and targets_of == "assistant" and tokenized.prompt_length == len(tokenized.tokens):
        raise InputError(
            f"example {example.id}: no token of its chat is the assistant's; give a last turn with content, or a chat "
            "template whose {% generation %} is around the text of the assistant"
        )
    return tokenized


def _render_plain(example: Example, tokenizer: Tokenizer, form: PromptForm) -> TokenizedExample:
    """Render without a chat template: a base model has no turns."""
    prompt = _plain_prompt(example)
    text = _contents(example)[-1] if example.is_trace else example.rationale + example.response
    if form.has_encoder:
        source, target = encode_prompt(example, tokenizer, prompt, True), encode(example, tokenizer, text)
        ids, starts, n = np.concatenate([source.ids, target.ids]), target.starts, len(source.ids)
    else:
        encoded, n = encode_continued(example, tokenizer, prompt, text)
        ids, starts = encoded.ids, encoded.starts[n:] - len(prompt)
    segments = np.where(starts < len(example.rationale), Segment.RATIONALE, Segment.RESPONSE)
    segments = np.concatenate([np.full(n, Segment.PROMPT), segments]).astype(np.uint8)
    return _with_end_token(TokenizedExample(example, ids, segments), tokenizer)


def _render_trace(example: Example, tokenizer: Tokenizer, form: PromptForm) -> TokenizedExample:
    """Render a chat by its template, as a whole."""
    chat = ChatText(example, tokenizer, form)
    if marks_turns(chat.source) and not loses_thoughts(example.messages[-1], _text_of_last(chat, example.messages)):
        encoded = encode(example, tokenizer, chat.render_complete(example.messages, prompts=False))
        is_assistant = _marked_tokens(chat, example.messages, encoded)
    else:
        layout = lay_out(chat, example.id, example.messages, last_only=False)
        encoded = encode(example, tokenizer, layout.text)
        is_assistant = np.zeros(len(encoded.ids), np.bool_)
        for turn in layout.turns:
            is_assistant |= _between(encoded, turn.start, turn.end)
    segments = np.where(is_assistant, Segment.RESPONSE, Segment.PROMPT).astype(np.uint8)
    return TokenizedExample(example, encoded.ids, segments)


def _text_of_last(chat: ChatText, messages: Sequence[dict[str, Any]]) -> str:
    """The text of a chat behind the prompt for its last turn; all of it if it does not begin with that prompt."""
    text = chat.render(messages, prompts=False)
    return text.removeprefix(chat.render(messages[:-1], prompts=True)) if len(messages) > 1 else text


def _render_response(example: Example, tokenizer: Tokenizer, form: PromptForm) -> TokenizedExample:
    """Render a chat whose last turn is the rationale and the response."""
    chat, messages = ChatText(example, tokenizer, form), _with_response(example)
    layout = lay_out(chat, example.id, messages, last_only=True)
    if layout.offsets is None:
        raise InputError(
            f"example {example.id}: the chat template changes the text of the response; give the response in the form "
            "in which the template writes it"
        )
    turn = layout.turns[-1]
    # A template that does not end turns leaves that to the end token: without one a model would never stop.
    text = layout.text if turn.is_ended else layout.text[: turn.end]
    encoded = encode(example, tokenizer, text)
    words_start = len(messages[-1]["content"]) - len(example.rationale + example.response)
    is_assistant = _between(encoded, int(layout.offsets[words_start]) if words_start else turn.start, turn.end)
    if marks_turns(chat.source) and layout.is_template_text and turn.is_ended:
        is_assistant &= _marked_tokens(chat, messages, encoded)
    segments = np.where(is_assistant, Segment.RESPONSE, Segment.PROMPT)
    if example.rationale:
        rationale_end = layout.offsets[words_start + len(example.rationale)]
        segments[is_assistant & (encoded.starts < rationale_end)] = Segment.RATIONALE
    tokenized = TokenizedExample(example, encoded.ids, segments.astype(np.uint8))
    return tokenized if turn.is_ended else _with_end_token(tokenized, tokenizer)


def _prompt_text(prompt: Example, chat: ChatText) -> str:
    """The text of a prompt. One that ends with the assistant's words ends there, not with the end of their turn."""
    if not prompt.messages or prompt.messages[-1]["role"] != "assistant":
        return chat.render_complete(prompt.messages, prompts=True)
    layout = lay_out(chat, prompt.id, prompt.messages, last_only=True)
    if layout.offsets is None:
        raise InputError(
            f"example {prompt.id}: the chat template changes the start of the answer; give it in the form in which the "
            "template writes it"
        )
    return layout.text[: int(layout.offsets[-1])]


def _with_response(example: Example) -> list[dict[str, Any]]:
    """The chat with the response as its last turn, which the messages may have begun."""
    words = example.rationale + example.response
    messages = [dict(turn) for turn in example.messages]
    if messages and messages[-1]["role"] == "assistant":
        start = messages.pop()
        return [*messages, {**start, "content": (start.get("content") or "") + words}]
    return [*messages, {"role": "assistant", "content": words}]


def _marked_tokens(chat: ChatText, messages: Sequence[dict[str, Any]], encoded: Encoded) -> npt.NDArray[np.bool_]:
    """Whether {% generation %} marks each token, bool [n]."""
    mask = chat.mask(messages)
    starts, ends = encoded.starts, encoded.ends
    for i in range(1, len(mask)):
        # A character may have several tokens, but the mask of Transformers ends with the first of them.
        mask[i] = mask[i] or (mask[i - 1] and (starts[i], ends[i]) == (starts[i - 1], ends[i - 1]))
    return np.asarray(mask, np.bool_)


def _between(encoded: Encoded, start: int, end: int) -> npt.NDArray[np.bool_]:
    """Whether each token has a character of start..end, bool [n]. An empty token counts by its position."""
    return (encoded.starts < end) & (np.maximum(encoded.ends, encoded.starts + 1) > start)


def _with_end_token(tokenized: TokenizedExample, tokenizer: Tokenizer) -> TokenizedExample:
    """Append the end token, if the tokenizer has one, as a part of the response."""
    if tokenizer.eos_token_id is None:
        return tokenized
    tokens = np.append(tokenized.tokens, np.uint32(tokenizer.eos_token_id))
    return replace(tokenized, tokens=tokens, segments=np.append(tokenized.segments, np.uint8(Segment.RESPONSE)))


def _plain_prompt(example: Example) -> str:
    """The text of a prompt without a chat template: the contents of its turns, a line each."""
    contents = _contents(example)
    if not example.is_trace:
        return "\n".join(contents)
    return "\n".join([*contents[:-1], ""]) if len(contents) > 1 else ""


def _contents(example: Example) -> list[str]:
    """The text of each turn, for a tokenizer without a template. Raises InputError if that would lose something."""
    special = {name for turn in example.messages for name in NEEDS_TEMPLATE if turn.get(name)}
    if lost := sorted(special | ({"tools"} if example.tools else set())):
        raise InputError(
            f"example {example.id}: has {lost[0]!r}, which is lost without a chat template; use a tokenizer with one"
        )
    for i, turn in enumerate(example.messages, start=1):
        if turn["role"] not in ROLES:
            raise InputError(
                f"example {example.id}: turn {i} has the role {turn['role']!r}; use 'system', 'user', 'assistant' or "
                "'tool'"
            )
    return [turn.get("content") or "" for turn in example.messages]
