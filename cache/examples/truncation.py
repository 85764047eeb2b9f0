"""Examples that are longer than a teacher reads: refused, or cut at one end."""

from dataclasses import replace
from typing import Literal

from cache.errors import InputError
from cache.examples.example import Segment, TokenizedExample

Truncation = Literal["refuse", "left", "right"]


def truncate(tokenized: TokenizedExample, most: int, policy: Truncation) -> TokenizedExample:
    """An example of at most `most` tokens: the last ones (left), the first ones (right), or all where they fit.

    How many are gone is in the metadata as "truncated_tokens". Raises InputError with "refuse", and where an example
    would lose all tokens with a target: those that are no prompt, but for the first, which no row precedes.
    """
    n = len(tokenized.tokens)
    if n <= most:
        return tokenized
    if policy == "refuse":
        raise InputError(f"{n} tokens are more than teacher.max_tokens = {most}")
    kept = slice(n - most, n) if policy == "left" else slice(0, most)
    segments = tokenized.segments[kept]
    if (tokenized.segments != Segment.PROMPT).any() and not (segments[1:] != Segment.PROMPT).any():
        end = "last" if policy == "left" else "first"
        raise InputError(
            f"of {n} tokens the {end} {most} hold nothing but prompt; raise teacher.max_tokens or cut at the other end"
        )
    metadata = {**tokenized.example.metadata, "truncated_tokens": n - most}
    example = replace(tokenized.example, metadata=metadata)
    return replace(tokenized, example=example, tokens=tokenized.tokens[kept], segments=segments)
