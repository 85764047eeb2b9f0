"""Where the parts of a chat are in its text: the turns of the assistant, and the words of its last turn."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.answers.reasoning import END_THINK, THINK
from cache.errors import InputError
from cache.rendering.assistant_turns import AssistantTurn, find_turn, find_turns
from cache.rendering.chat_template import ChatText, squeeze


@dataclass(frozen=True, slots=True)
class ChatLayout:
    """The text of a chat, its turns of the assistant in order, and where the content of the last turn is.

    offsets: int64 [characters of the content + 1], the offset in the text of each character of the content, and of its
        end; None if the template writes it in another form.
    is_template_text: False if the text contains thoughts that the template leaves out.
    """

    text: str
    turns: list[AssistantTurn]
    offsets: npt.NDArray[np.int64] | None
    is_template_text: bool = True


def lay_out(chat: ChatText, name: str, messages: Sequence[dict[str, Any]], last_only: bool) -> ChatLayout:
    """Lay out a chat that ends with the assistant. name: of the example. last_only: find the last turn only.

    Raises InputError if the template leaves out a part, or if a turn cannot be found.
    """
    lost: InputError | None = None
    try:
        text = chat.render_complete(messages, prompts=False)
    except InputError as error:
        # Some templates write the system turn only where a prompt ends the chat.
        lost, text = error, chat.render(messages, prompts=False)
    try:
        turns = (
            [find_turn(chat, name, messages, len(messages) - 1, text)]
            if last_only
            else find_turns(chat, name, messages, text)
        )
    except InputError as error:
        raise lost or error from None
    if lost is not None or loses_thoughts(messages[-1], text[_start_of_words(text, turns[-1]) : turns[-1].end]):
        return _behind_prompt(chat, name, messages, text, turns, lost)
    return ChatLayout(text, turns, _find_words(messages[-1].get("content") or "", text, turns[-1]))


def loses_thoughts(turn: Mapping[str, Any], text: str) -> bool:
    """Whether the content of a turn has thoughts that are not in the text that the template made of the turn."""
    thoughts, end, _ = (turn.get("content") or "").rpartition(END_THINK)
    return squeeze(thoughts.removeprefix(THINK) + end) not in squeeze(text)


def _start_of_words(text: str, turn: AssistantTurn) -> int:
    """Where the content of a turn may begin: before its start, if the prompt for it opens the thoughts."""
    opened = re.search(rf"{THINK}\s*$", text[: turn.start])
    return opened.start() if opened else turn.start


def _behind_prompt(
    chat: ChatText,
    name: str,
    messages: Sequence[dict[str, Any]],
    text: str,
    turns: list[AssistantTurn],
    lost: InputError | None,
) -> ChatLayout:
    """Let the whole content follow the prompt for the last turn, because the text of the chat lacks a part.

    Such a template leaves out the thoughts of turns that are over. The prompt for a turn may open the thoughts already.
    lost: why the text of the chat cannot be used, if not for the thoughts.
    """
    words, last = messages[-1].get("content") or "", turns[-1]
    if lost is not None and (
        len(messages) < 2 or messages[-1].get("tool_calls") or "reasoning_content" in messages[-1]
    ):
        raise lost
    prompt = chat.render_complete(messages[:-1], prompts=True) if len(messages) > 1 else text[: last.start]
    if not prompt.startswith(text[: turns[-2].end if len(turns) > 1 else 0]):
        raise lost or InputError(
            f"example {name}: the chat template leaves out the thoughts of the last turn; remove them"
        )
    rest = words
    if prompt.rstrip().endswith(THINK) and words.lstrip().startswith(THINK):
        rest = words.lstrip().removeprefix(THINK).lstrip()
    start, removed = len(prompt), len(words) - len(rest)
    end_text = text[last.content_end : last.end]
    offsets = start + np.maximum(np.arange(len(words) + 1) - removed, 0)
    content_end = start + len(rest)
    turn = replace(last, start=start, content_start=start, content_end=content_end, end=content_end + len(end_text))
    return ChatLayout(prompt + rest + text[last.content_end :], [*turns[:-1], turn], offsets, is_template_text=False)


def _find_words(words: str, text: str, turn: AssistantTurn) -> npt.NDArray[np.int64] | None:
    """Offset in the text of each character of the words of a turn, and of their end, int64 [n + 1].

    Templates may strip the words or change white space in them. None if they differ in more than that.
    """
    # From the start of the turn: the template may have written the thoughts of the words before their place.
    first = _start_of_words(text, turn)
    body = text[first : turn.content_end]
    if (position := body.rfind(words)) >= 0:
        return np.maximum(first + position + np.arange(len(words) + 1, dtype=np.int64), turn.start)
    if not squeeze(words):
        return np.full(len(words) + 1, turn.content_end, np.int64)
    position = squeeze(body).rfind(squeeze(words))
    if position < 0:
        return None
    printed = np.flatnonzero([not c.isspace() for c in body]) + first
    # For each character of the words: the next printed one, and the white space before it.
    is_space = np.array([c.isspace() for c in words], dtype=np.bool_)
    ranks = np.append(np.cumsum(~is_space) - ~is_space, np.count_nonzero(~is_space))
    last = int(ranks[-1])
    ends = np.concatenate([printed[position : position + last], printed[position + last - 1 : position + last] + 1])
    starts = np.concatenate([[first], printed + 1])[position : position + last + 1]
    spaces = np.searchsorted(ranks, ranks, side="right") - 1 - np.arange(len(words) + 1)
    offsets = np.where(ranks < last, np.maximum(ends[ranks] - spaces, starts[ranks]), ends[-1])
    clipped: npt.NDArray[np.int64] = np.maximum(offsets, turn.start).astype(np.int64)
    return clipped
