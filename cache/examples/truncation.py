"""Examples that are too long for the teacher: an error, or a cut at one end."""

from dataclasses import replace
from typing import Literal

from cache.errors import InputError
from cache.examples.example import Segment, TokenizedExample

Truncation = Literal["refuse", "left", "right"]


def truncate(tokenized: TokenizedExample, max_tokens: int, policy: Truncation) -> TokenizedExample:
    """Cut an example to `max_tokens` tokens: "left" keeps the last ones, "right" the first ones.

    The number of removed tokens is in the metadata as "truncated_tokens". Raises InputError if the policy is "refuse"
    and the example is too long, or if no token with a target would remain: one that is not prompt and not the first.
    """
    n = len(tokenized.tokens)
    if n <= max_tokens:
        return tokenized
    if policy == "refuse":
        raise InputError(f"{n} tokens are more than teacher.max_tokens = {max_tokens}")
    remaining = slice(n - max_tokens, n) if policy == "left" else slice(0, max_tokens)
    segments = tokenized.segments[remaining]
    if (tokenized.segments != Segment.PROMPT).any() and not (segments[1:] != Segment.PROMPT).any():
        end = "last" if policy == "left" else "first"
        raise InputError(
            f"of {n} tokens the {end} {max_tokens} are nothing but prompt; raise teacher.max_tokens or cut at the "
            "other end"
        )
    metadata = {**tokenized.example.metadata, "truncated_tokens": n - max_tokens}
    example = replace(tokenized.example, metadata=metadata)
    return replace(tokenized, example=example, tokens=tokenized.tokens[remaining], segments=segments)
