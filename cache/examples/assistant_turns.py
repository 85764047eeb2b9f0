"""What the assistant said in a chat, found in the text that a chat template makes of it. Knows no tokenizer."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from cache.errors import InputError
from cache.examples.example import Example

MARK = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
# Text of some messages, and whether the assistant is prompted to speak next.
TextOf = Callable[[Sequence[dict[str, Any]], bool], str]


def marks_turns(template: str) -> bool:
    """Whether a chat template says itself what the assistant says, by {% generation %}."""
    return MARK.search(template) is not None


def split_turns(example: Example, text_of: TextOf) -> list[tuple[str, bool]]:
    """The text of a whole chat in pieces, none of them empty, each with whether the assistant said it.

    A turn of the assistant is what follows the text that prompts for it; white space at its end belongs to what comes
    next. Raises InputError where the template does not write a turn the same way when others follow.
    """
    full = text_of(example.messages, False)
    pieces: list[tuple[str, bool]] = []
    done = 0
    for i, turn in enumerate(example.messages):
        if turn.get("role") != "assistant":
            continue
        if i == 0:
            raise InputError(
                f"example {example.id}: turn 1 is the assistant's and nothing prompts for it; begin with another turn, "
                "or use a chat template with {% generation %} around what the assistant says"
            )
        before = text_of(example.messages[:i], True)
        after = full if i + 1 == len(example.messages) else text_of(example.messages[: i + 1], False)
        start, end = len(before), max(len(before), len(after.rstrip()))
        if not (after.startswith(before) and full.startswith(after[:end]) and start >= done):
            raise InputError(
                f"example {example.id}: the chat template rewrites earlier turns: the whole chat does not begin with "
                f"the text that prompts for turn {i + 1} and the turn itself; use a chat template with "
                "{% generation %} around what the assistant says"
            )
        pieces += [(full[done:start], False), (full[start:end], True)]
        done = end
    return [(text, said) for text, said in [*pieces, (full[done:], False)] if text]
