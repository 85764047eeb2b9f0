"""Blocks of examples with a bounded number of tokens, for work that shall not need more memory on a larger store."""

from collections.abc import Iterator
from typing import Any

import numpy.typing as npt

# Tokens that are in memory at a time. At k = 64 a decoded token takes about 0.6 KB.
BLOCK_TOKENS = 1 << 13


def token_blocks(lengths: npt.NDArray[Any], max_tokens: int = BLOCK_TOKENS) -> Iterator[range]:
    """Ranges of consecutive examples with at most `max_tokens` tokens together; a longer example is a range of its own.

    lengths: number of tokens of each example, [examples].
    """
    start, tokens = 0, 0
    for i, length in enumerate(lengths.tolist()):
        if i > start and tokens + length > max_tokens:
            yield range(start, i)
            start, tokens = i, 0
        tokens += length
    if start < len(lengths):
        yield range(start, len(lengths))
