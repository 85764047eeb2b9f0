"""Texts, turns and segments are matched: equal texts align, different ones are masked."""

import numpy as np

from cache.examples.example import Segment
from cache.rows.record import Window
from cache.rows.sparse_targets import concatenate
from student.tokenizers.alignment import Alignment, align
from student.tokenizers.vocabulary_map import VocabularyMap
from tests.student.tokenizers.markov_teacher import (
    aligned,
    assert_same_distribution,
    distributions,
    greedy,
    kinds,
    vocabulary,
    window,
)


def test_the_row_before_a_token_predicts_that_token() -> None:
    texts = vocabulary("one", "two", "three", "four")
    teacher_tokens = [1, 2, 3, 4, 2, 1]
    source = window(teacher_tokens, [{id_: 0.9, 1 + id_ % 4: 0.1} for id_ in teacher_tokens])
    student = vocabulary(*"onetwhrfu")
    student_tokens = greedy(b"".join(texts[id_] or b"" for id_ in teacher_tokens), student)
    for mapping, tokens in (
        (VocabularyMap(texts, texts), teacher_tokens),
        (VocabularyMap(texts, student), student_tokens),
    ):
        result = aligned(source, tokens, mapping)
        targets = result.window.targets
        assert targets.ids[targets.offsets[:-2]].tolist() == tokens, "the likeliest of row j is token j + 1"


def test_after_the_texts_differ_rows_are_masked() -> None:
    texts = vocabulary("ab", "cd", "a", "b", "c", "d", "e")
    source = window([1, 2, 1], [{1: 0.5, 2: 0.5}] * 3)
    mapping = VocabularyMap(texts, texts)
    same = aligned(source, [1, 2, 1], mapping)
    other = aligned(source, [1, 5, 7, 1], mapping)
    expected = [Alignment.EXACT, Alignment.EXACT, Alignment.INSIDE, Alignment.MASKED]
    assert kinds(other) == expected, "the byte after abc has a distribution, though another byte follows"
    assert distributions(other)[:1] == distributions(same)[:1] and distributions(other)[2][0].keys() == {6}
    longer = aligned(source, [1, 2, 1, 2], mapping)
    assert kinds(longer) == [*kinds(same), Alignment.MASKED]


def test_a_leading_space_of_one_tokenizer_masks_one_token() -> None:
    texts = vocabulary(" one", "one", " ", " two", "two", "o", "ne")
    rows = [{1: 0.5, 2: 0.5}, {4: 0.5, 5: 0.5}]
    mapping = VocabularyMap(texts, texts)
    for teacher_tokens, student_tokens in (([1, 4], [2, 4]), ([2, 4], [1, 4]), ([2, 4], [3, 2, 4])):
        result = aligned(window(teacher_tokens, rows), student_tokens, mapping)
        if student_tokens == [3, 2, 4]:
            assert kinds(result) == [Alignment.MASKED, Alignment.EXACT, Alignment.EXACT]
        else:
            assert kinds(result) == [Alignment.MASKED, Alignment.EXACT]
        assert_same_distribution(distributions(result)[-1][0], {4: 0.5, 5: 0.5})
    result = aligned(window([1, 4], rows), [6, 7, 4], mapping)
    assert kinds(result) == [Alignment.MASKED, Alignment.MASKED, Alignment.EXACT], "the row is that of ' one'"


def test_turns_are_aligned_one_by_one() -> None:
    texts = vocabulary("ab", "c")
    student = vocabulary("a", "b", "c")
    mapping = VocabularyMap(texts, student)
    rows = [{1: 0.75, 2: 0.25}, {1: 0.25, 2: 0.75}]
    one, two = window([1], rows[:1]), window([2], rows[1:])
    both = Window(
        np.concatenate([one.tokens, two.tokens]),
        np.concatenate([one.segments, two.segments]),
        concatenate([one.targets, two.targets]),
        np.concatenate([one.token_logprobs, two.token_logprobs]),
    )
    tokens, segments = np.array([0, 1, 2, 0, 0, 3], np.uint32), np.array([0, 3, 3, 0, 0, 3], np.uint8)
    result = align(both, tokens, segments, mapping)
    expected = [
        Alignment.PROMPT,
        Alignment.EXACT,
        Alignment.INSIDE,
        Alignment.PROMPT,
        Alignment.PROMPT,
        Alignment.EXACT,
    ]
    assert result.kinds.tolist() == expected
    assert result.window.targets.counts.tolist() == [2, 1, 0, 0, 2, 0]
    assert_same_distribution(distributions(result)[4][0], {1: 0.25, 3: 0.75})
    other = align(both, tokens[:3], segments[:3], mapping)
    assert other.kinds.tolist() == [Alignment.PROMPT, Alignment.MASKED, Alignment.MASKED], "another number of turns"
    assert len(other.window.targets.ids) == 0


def test_labels_are_where_the_teacher_has_them() -> None:
    texts, student = vocabulary("ab", "cd", "ef"), vocabulary(*"abcdef")
    source = window([1, 2, 3], [{1: 0.5, 2: 0.25, 3: 0.25}] * 3)
    source.segments[1:] = [Segment.RATIONALE, Segment.LABEL, Segment.RESPONSE]
    segments = np.array([Segment.PROMPT, *[Segment.RATIONALE] * 3, *[Segment.RESPONSE] * 3], np.uint8)
    result = align(source, np.arange(7, dtype=np.uint32), segments, VocabularyMap(texts, student))
    assert result.window.segments.tolist() == [0, 1, 1, 2, 2, 3, 3]
    assert segments.tolist() == [0, 1, 1, 1, 3, 3, 3], "the argument is unchanged"


def test_a_response_cut_on_the_left_is_masked() -> None:
    """Texts may have the same beginning by chance, after different texts."""
    texts = vocabulary("a", "b", "c")
    source = window([1, 2, 1, 3], [{1: 0.5, 2: 0.25, 3: 0.25}] * 4).part(1, 5)
    segments = np.array([0, 3, 3, 3], np.uint8)
    result = align(source, np.array([0, 1, 3, 3], np.uint32), segments, VocabularyMap(texts, texts))
    assert set(kinds(result)) == {Alignment.MASKED}
