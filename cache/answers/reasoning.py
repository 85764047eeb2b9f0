"""Reasoning in the text of a model: the tags around it, and where the answer begins after it."""

# The most common tags, which chat templates write too.
THINK, END_THINK = "<think>", "</think>"
# Tags that reasoning models write around their reasoning. A prompt may end with the opening tag already.
REASONING_TAGS = (
    (THINK, END_THINK),
    ("<thinking>", "</thinking>"),
    ("<reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("◁think▷", "◁/think▷"),
)


def find_reasoning_end(text: str) -> int:
    """Return the offset at which the answer begins after reasoning in tags such as <think>; 0 if there are none.

    Tags inside an answer do not count: the opening tag must be the first text, or be part of the prompt.
    """
    for opening, closing in REASONING_TAGS:
        head, tag, rest = text.partition(closing)
        if tag and opening not in head.lstrip().removeprefix(opening):
            return len(text) - len(rest.lstrip())
    return 0


def opens_reasoning(prompt: str) -> bool:
    """Return whether a prompt ends with an opening tag of reasoning, so that the response begins inside it."""
    return prompt.rstrip().endswith(tuple(opening for opening, _ in REASONING_TAGS))


def is_open_reasoning(text: str) -> bool:
    """Return whether a text begins with an opening tag of reasoning and does not contain its end."""
    return any(text.lstrip().startswith(opening) and closing not in text for opening, closing in REASONING_TAGS)
