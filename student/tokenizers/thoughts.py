"""Where the same words begin in two texts of a turn, if their templates write different thoughts before them."""

import re
from itertools import accumulate

import numpy as np

from cache.answers.reasoning import END_THINK, THINK

# Templates open the thoughts in the prompt or in the turn, write an empty block, or none.
OPENING = re.compile(rf"\s*{THINK}\s*".encode())
BLOCK = re.compile(rf"(?:\s*{THINK})?.*?{END_THINK}\s*".encode(), re.DOTALL)


def find_words(teacher: list[bytes], student: list[bytes]) -> tuple[int, int]:
    """Number of leading tokens to skip in each list, so that the rest begins with the same text.

    (0, 0) if neither text has thoughts, or if their beginnings are the same already.
    """
    texts = b"".join(teacher), b"".join(student)
    if not any(tag.encode() in text for tag in (THINK, END_THINK) for text in texts):
        return 0, 0
    pairs = [(i, j) for i in _starts(texts[0]) for j in _starts(texts[1])]
    i, j = max(pairs, key=lambda pair: (common_prefix(texts[0][pair[0] :], texts[1][pair[1] :]), -sum(pair)))
    if (i, j) == (0, 0):
        return 0, 0
    # The first place from there where both have the start of a token.
    ends = {end - i: n for n, end in enumerate([0, *accumulate(map(len, teacher))])}
    others = {end - j: n for n, end in enumerate([0, *accumulate(map(len, student))])}
    shared = sorted(offset for offset in ends.keys() & others.keys() if offset >= 0)
    return (ends[shared[0]], others[shared[0]]) if shared else (0, 0)


def _starts(text: bytes) -> list[int]:
    """Where the words may begin: at the start, after the tag that opens thoughts, or after the thoughts.

    Some templates write a space before the words.
    """
    found = (OPENING.match(text), BLOCK.match(text))
    starts = {0, *(match.end() for match in found if match)}
    return sorted(starts | {start + 1 for start in starts if text[start : start + 1] == b" "})


def common_prefix(a: bytes, b: bytes) -> int:
    """Number of equal bytes at the start of two texts."""
    if a == b:
        return len(a)
    length = min(len(a), len(b))
    is_different = np.frombuffer(a[:length], np.uint8) != np.frombuffer(b[:length], np.uint8)
    return int(np.argmax(is_different)) if is_different.any() else length
