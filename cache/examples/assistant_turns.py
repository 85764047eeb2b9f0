"""Find the turns of the assistant in the text that a chat template makes of a chat. Knows no tokenizer."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from cache.errors import InputError
from cache.examples.example import Example

MARK = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
# Makes the text of some messages; the flag adds the prompt for a turn of the assistant.
TextOf = Callable[[Sequence[dict[str, Any]], bool], str]


def marks_turns(template: str) -> bool:
    """Whether a chat template marks the turns of the assistant by {% generation %}."""
    return MARK.search(template) is not None


def split_turns(example: Example, text_of: TextOf) -> list[tuple[str, bool]]:
    """Split the text of a chat into pieces that are not empty, each with whether it is the assistant's.

    A turn of the assistant is the text after the prompt for it. White space at its end belongs to the next piece.
    Raises InputError if the template changes a turn when other turns follow.
    """
    full = text_of(example.messages, False)
    pieces: list[tuple[str, bool]] = []
    position = 0
    for i, turn in enumerate(example.messages):
        if turn.get("role") != "assistant":
            continue
        if i == 0:
            raise InputError(
                f"example {example.id}: turn 1 is the assistant's and no turn prompts for it; begin with another turn, "
                "or use a chat template with {% generation %} around the text of the assistant"
            )
        before = text_of(example.messages[:i], True)
        after = full if i + 1 == len(example.messages) else text_of(example.messages[: i + 1], False)
        start, end = len(before), max(len(before), len(after.rstrip()))
        if not (after.startswith(before) and full.startswith(after[:end]) and start >= position):
            raise InputError(
                f"example {example.id}: the chat template rewrites earlier turns: the whole chat does not begin with "
                f"the text that prompts for turn {i + 1} and the turn itself; use a chat template with "
                "{% generation %} around the text of the assistant"
            )
        pieces += [(full[position:start], False), (full[start:end], True)]
        position = end
    return [(text, by_assistant) for text, by_assistant in [*pieces, (full[position:], False)] if text]
