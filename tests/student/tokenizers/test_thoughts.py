"""A student learns the words of an answer, whatever thoughts the templates of teacher and student write before them."""

from typing import Any

import numpy as np
import pytest

from cache.examples.example import Example, Segment, TokenizedExample
from cache.rendering.render import render
from cache.rows.record import Window
from cache.rows.sparse_targets import SparseTargets
from student.tokenizers.alignment import Alignment, align
from student.tokenizers.thoughts import find_words
from student.tokenizers.vocabulary_map import map_vocabularies
from tests.cache.examples.chats import PLAIN, chat_tokenizer
from tests.cache.rendering import published_templates as published
from tests.cache.rendering.test_published_templates import QUESTION, sentence_pieces

TEMPLATES = {
    "plain": PLAIN,
    "empty block": published.THINKING,
    "opened": published.OPENED_THOUGHTS,
    "opened and written": published.OPENED_WRITTEN,
    "spaced": published.INSTRUCTIONS,
}


def certain(rendered: TokenizedExample) -> Window:
    """A window whose rows give 0.98 to the token that follows."""
    has_row = np.append(rendered.segments[1:] != Segment.PROMPT, False)
    ids = rendered.tokens[1:][has_row[:-1]]
    offsets = np.concatenate([[0], np.cumsum(has_row.astype(np.int64))])
    tail = np.where(has_row, np.log(0.02), 0).astype(np.float32)
    targets = SparseTargets(offsets, ids.astype(np.uint32), np.full(len(ids), np.log(0.98), np.float32), tail)
    logprobs = np.full(len(has_row), np.nan, np.float32)
    logprobs[1:][has_row[:-1]] = np.log(0.98)
    return Window(rendered.tokens, rendered.segments, targets, logprobs)


@pytest.mark.parametrize("teacher_name", TEMPLATES)
@pytest.mark.parametrize("student_name", TEMPLATES)
@pytest.mark.parametrize("rationale", ["", "<think>\nmust add\n</think>\n\n"])
def test_a_target_is_of_the_token_that_follows(teacher_name: str, student_name: str, rationale: str) -> None:
    teacher: Any = chat_tokenizer(TEMPLATES[teacher_name])
    student: Any = sentence_pieces(TEMPLATES[student_name])
    example = Example("1", QUESTION, rationale, "it is 4")
    rendered = render(example, student)
    aligned = align(
        certain(render(example, teacher)),
        rendered.tokens,
        rendered.segments,
        map_vocabularies(teacher, len(teacher), student),
    )
    targets, exact = aligned.window.targets, 0
    for t in np.flatnonzero(rendered.segments != Segment.PROMPT):
        entries = slice(int(targets.offsets[t - 1]), int(targets.offsets[t]))
        if entries.start == entries.stop:
            continue
        best = targets.ids[entries][np.argmax(targets.logprobs[entries])]
        assert best == rendered.tokens[t], student.decode([int(rendered.tokens[t])])
        exact += aligned.kinds[t] != Alignment.MASKED
    assert exact >= 2, "the words of the answer, but for a first one behind a space"


def test_words_begin_at_tokens_of_both() -> None:
    block = [b"<think>", b"\n\n", b"</think>", b"\n\n", b"It", b" is"]
    assert find_words(block, [b"It", b" is"]) == (4, 0) and find_words([b"It", b" is"], block) == (0, 4)
    assert find_words(block, block) == find_words([b"a"], [b"b"]) == (0, 0)
    assert find_words([b"add", b"</think>", b"4"], [b"<think>", b"add", b"</think>", b"4"]) == (0, 1)
    assert find_words([b"<think>x</think>It is"], [b"It", b" is"]) == (1, 2), "no common start of a token but the end"
