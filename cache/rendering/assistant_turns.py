"""Find the turns of the assistant in the text that a chat template makes of a chat. Knows no tokenizer.

A turn is found by a second rendering, in which a probe stands in its place: what both texts have in common before and
after the probe is not the turn's. So a template may rewrite a turn when others follow, as those of thinking models do.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cache.errors import InputError
from cache.rendering.chat_template import PROBE, ChatText

MARK = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
SPECIAL = re.compile(r"\s*<[^<>\s]{1,40}>")


@dataclass(frozen=True, slots=True)
class AssistantTurn:
    """Offsets of a turn in the text of its chat.

    start: after the prompt for the turn. content_start, content_end: what the template made of the turn's content and
    tool calls. end: after the text that ends a turn, without white space. is_ended: whether there is such a text.
    """

    start: int
    content_start: int
    content_end: int
    end: int
    is_ended: bool


def marks_turns(template: str) -> bool:
    """Whether a chat template marks the turns of the assistant by {% generation %}."""
    return MARK.search(template) is not None


def find_turns(chat: ChatText, name: str, messages: Sequence[dict[str, Any]], text: str) -> list[AssistantTurn]:
    """Find all turns of the assistant in the text of the chat. name: of the example, for errors.

    Raises InputError if a turn cannot be found.
    """
    turns: list[AssistantTurn] = []
    for i, turn in enumerate(messages):
        if turn["role"] != "assistant":
            continue
        found = find_turn(chat, name, messages, i, text)
        if turns and found.start < turns[-1].end:
            raise _error(name, i)
        turns.append(found)
    return turns


def find_turn(chat: ChatText, name: str, messages: Sequence[dict[str, Any]], i: int, text: str) -> AssistantTurn:
    """Find turn `i`, which is the assistant's, in the text of the chat. Raises InputError if it cannot be found."""
    for probe in _probes(messages[i]):
        if (found := _find_by(probe, chat, messages, i, text)) is not None:
            return found
    # What follows the turn depends on it. Then the text up to its end must be a prefix of the whole.
    whole = chat.render(messages[: i + 1], prompts=False).rstrip()
    start = _start_of_turn(chat, messages[:i], text, len(whole), len(whole))
    if not text.startswith(whole):
        raise _error(name, i)
    return AssistantTurn(start, start, len(whole), len(whole), is_ended=True)


def _probes(turn: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Turns that stand in the place of this one, with PROBE once in each. Templates refuse some of them."""
    yield {"role": "assistant", "content": PROBE}
    if calls := turn.get("tool_calls"):
        yield {**turn, "content": PROBE}
        first = dict(calls[0])
        if "function" in first:
            first["function"] = {**first["function"], "arguments": {PROBE: 0}}
        else:
            first["arguments"] = {PROBE: 0}
        yield {**turn, "tool_calls": [first, *calls[1:]]}


def _find_by(
    probe: dict[str, Any], chat: ChatText, messages: Sequence[dict[str, Any]], i: int, text: str
) -> AssistantTurn | None:
    """Find turn `i` with a probe in its place; None if that is not possible."""
    try:
        short = chat.render([*messages[:i], probe], prompts=False)
        is_last = i + 1 == len(messages)
        probed = short if is_last else chat.render([*messages[:i], probe, *messages[i + 1 :]], prompts=False)
    except InputError:
        return None
    if short.count(PROBE) != 1 or probed.count(PROBE) != 1:
        return None
    before, _, after = probed.partition(PROBE)
    head = _common_length(before, text)
    # Behind a probe in the arguments of a call comes the rest of the arguments, which is not common to both.
    changed = 0 if "tool_calls" not in probe or probe.get("content") == PROBE else after.find("}") + 1
    after, end_of_last = after[changed:], short.partition(PROBE)[2].rstrip()[changed:]
    if not text.endswith(after):
        return None
    content_end = len(text) - len(after)
    end = content_end + _length_of_end(after, end_of_last)
    is_ended = bool(text[content_end:end].strip())
    start = _start_of_turn(chat, messages[:i], text, head, end)
    if max(head, start) > end:
        return None
    if not is_ended:  # white space alone belongs to what follows
        end = start + len(text[start:end].rstrip())
    return AssistantTurn(start, min(head, end), min(content_end, end), end, is_ended)


def _start_of_turn(chat: ChatText, messages: Sequence[dict[str, Any]], text: str, head: int, end: int) -> int:
    """Offset after the prompt for a turn that follows these messages.

    A prompt can contain more than the whole chat does: one that opens the thoughts, where the chat has none of them.
    """
    if not messages:
        return head
    prompt = chat.render(messages, prompts=True)
    return len(prompt) if text.startswith(prompt) and len(prompt) <= end else head


def _length_of_end(after: str, end_of_last: str) -> int:
    """Number of leading characters of `after` that end a turn.

    end_of_last: the text that ends a turn which is the last one.
    """
    if after.startswith(end_of_last):
        return len(end_of_last)
    # Some templates end the last turn by another token than the others.
    special = SPECIAL.match(after)
    return special.end() if special else 0


def _common_length(a: str, b: str) -> int:
    """Length of the longest common prefix."""
    if b.startswith(a):
        return len(a)
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _error(name: str, i: int) -> InputError:
    return InputError(
        f"example {name}: turn {i + 1}, the assistant's, cannot be found in the text that the chat template makes of "
        "the whole chat; use a chat template with {% generation %} around the text of the assistant"
    )
