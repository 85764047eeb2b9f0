"""Each rule of the alignment on a case worked out by hand: split tokens, joined tokens, unknown mass, masks."""

import numpy as np
import pytest

from cache.rows.record import Window
from cache.rows.sparse_targets import concatenate, empty_targets
from student.tokenizers.alignment import Alignment
from student.tokenizers.vocabulary_map import VocabularyMap
from tests.student.tokenizers.markov_teacher import (
    PROMPT,
    aligned,
    assert_same_distribution,
    distributions,
    kinds,
    vocabulary,
    window,
)


def test_entries_with_one_first_token_are_added() -> None:
    teacher, student = (
        vocabulary("hello", "help", "hey", "no", b"\xfe"),
        vocabulary("he", "hel", "l", "y", "no", "o", "p"),
    )
    distribution = {1: 0.4, 2: 0.2, 3: 0.1, 4: 0.1, 5: 0.15}
    result = aligned(window([4], [distribution]), [5], VocabularyMap(teacher, student))
    (actual, tail) = distributions(result)[0]
    assert_same_distribution(actual, {2: 0.6, 1: 0.1, 5: 0.1})
    assert tail == pytest.approx(0.05 + 0.15), "bytes without a student token are tail"


def test_inside_a_token_only_entries_with_the_same_prefix_count() -> None:
    teacher = vocabulary("hello", "help", "he", "no", "h", "x")
    student = vocabulary("he", "llo", "lp", "no", "x", "h", "e", "l", "o", "p")
    mapping = VocabularyMap(teacher, student)
    distribution = {1: 0.5, 2: 0.25, 4: 0.19, 3: 0.02, 5: 0.01, 6: 0.01, PROMPT: 0.01}  # and a tail of 0.01
    result = aligned(window([1], [distribution]), [1, 2], mapping)
    assert kinds(result) == [Alignment.EXACT, Alignment.INSIDE]
    actual, tail = distributions(result)[1]
    total = 0.5 + 0.25 + 0.02 + 0.01 + 0.01 + 0.01
    assert_same_distribution(actual, {2: 0.5 / total, 3: 0.25 / total})
    assert tail == pytest.approx(0.05 / total), (
        "the continuation of he, h, the tail and the token without bytes is unknown"
    )


def test_inside_a_token_too_much_unknown_mass_masks() -> None:
    teacher = vocabulary("hello", "help", "he", "no")
    mapping = VocabularyMap(teacher, vocabulary("he", "llo", "lp", "no", "h", "e", "l", "o", "p"))
    for prefix, kind in ((0.08, Alignment.INSIDE), (0.12, Alignment.MASKED)):
        distribution = {1: 0.45, 2: 0.45 - prefix / 2, 3: prefix, 4: 0.05}
        result = aligned(window([1], [distribution]), [1, 2], mapping)
        assert kinds(result)[1] == kind
        assert (len(distributions(result)[1][0]) == 0) == (kind == Alignment.MASKED)


def test_a_token_without_an_entry_is_subtracted_from_the_tail() -> None:
    teacher, student = vocabulary("a", "b", "c"), vocabulary("a", "b", "c", "ab")
    rows = [{3: 0.7}, {3: 0.5, 1: 0.2}]
    source = window([1, 2], rows)
    source.token_logprobs[1:] = np.log([0.2, 0.25])
    actual, tail = distributions(aligned(source, [4], VocabularyMap(teacher, student)))[0]
    assert_same_distribution(actual, {3: 0.7, 4: 0.2 * 0.25, 1: 0.2 * 0.75})
    assert tail == pytest.approx(0.1)
    source.token_logprobs[:] = np.nan
    actual, tail = distributions(aligned(source, [4], VocabularyMap(teacher, student)))[0]
    assert_same_distribution(actual, {3: 0.7})
    assert tail == pytest.approx(0.3)


def test_a_longer_token_needs_every_row_that_it_covers() -> None:
    teacher, student = vocabulary("a", "b", "c"), vocabulary("a", "b", "c", "abc")
    source = window([1, 2, 3], [{1: 0.5, 2: 0.5}, {2: 1.0}, {3: 1.0}])
    assert kinds(aligned(source, [4], VocabularyMap(teacher, student))) == [Alignment.CHAINED]
    for missing in (1, 2):
        parts = [source.targets.rows(i, i + 1) if i != missing else empty_targets(1) for i in range(4)]
        gap = Window(source.tokens, source.segments, concatenate(parts), source.token_logprobs)
        assert kinds(aligned(gap, [4], VocabularyMap(teacher, student))) == [Alignment.MASKED]


def test_a_shared_token_that_the_teacher_split_has_the_mass_of_both_ways() -> None:
    texts = vocabulary("a", "b", "ab")
    source = window([1, 2], [{1: 0.5, 3: 0.3, 2: 0.2}, {2: 0.25, 1: 0.75}])
    result = aligned(source, [3], VocabularyMap(texts, texts))
    assert kinds(result) == [Alignment.CHAINED]
    assert_same_distribution(distributions(result)[0][0], {3: 0.3 + 0.5 * 0.25, 1: 0.5 * 0.75, 2: 0.2})


@pytest.mark.parametrize("teacher_tokens, student_tokens", [([1, 3], [1, 3]), ([1, 1, 2], [1, 4])])
def test_a_pair_that_the_student_joins_is_excluded(teacher_tokens: list[int], student_tokens: list[int]) -> None:
    """After "a" no "b" follows: that is "ab". It is unknown how much of the tail is excluded too."""
    mapping = VocabularyMap(vocabulary("a", "b", "c"), vocabulary("a", "b", "c", "ab"))
    for joined, has_row in ((0.3, True), (0.5, False)):
        distribution = {2: joined, teacher_tokens[1]: 0.85 - joined}
        result = aligned(
            window(teacher_tokens, [{1: 1.0}, distribution, {2: 1.0}][: len(teacher_tokens)]), student_tokens, mapping
        )
        actual, tail = distributions(result)[1]
        assert bool(actual) == has_row and (kinds(result)[1] != Alignment.MASKED) == has_row
        if has_row:
            assert_same_distribution(actual, {student_tokens[1]: 0.55 / 0.7})
            assert tail == pytest.approx(0.15 / 0.7)


def test_a_token_that_occurred_is_never_excluded() -> None:
    """Also if the student's tokenizer does not choose the longest token first."""
    teacher, student = vocabulary("a", "b", "c"), vocabulary("a", "b", "c", "ab", "bc")
    mapping = VocabularyMap(teacher, student)
    rows = [{1: 1.0}, {2: 0.6, 1: 0.2, 3: 0.2}]
    actual, _ = distributions(aligned(window([1, 2], rows), [1, 2], mapping))[1]
    assert_same_distribution(actual, {2: 0.6, 1: 0.2, 3: 0.2})
    actual, _ = distributions(aligned(window([1, 2, 3], [*rows, {3: 0.5, 1: 0.5}]), [1, 5], mapping))[1]
    assert_same_distribution(actual, {5: 0.3, 2: 0.3, 1: 0.2, 3: 0.2})


def test_characters_are_split_and_joined() -> None:
    e_acute, e_grave = "é".encode(), "è".encode()
    characters, bytes_ = vocabulary("é", "è", "x"), vocabulary(e_acute[:1], e_acute[1:], e_grave[1:], "x")
    result = aligned(window([1, 3], [{1: 0.6, 2: 0.2, 3: 0.2}, {3: 1.0}]), [1, 2, 4], VocabularyMap(characters, bytes_))
    assert kinds(result) == [Alignment.EXACT, Alignment.INSIDE, Alignment.EXACT]
    assert_same_distribution(distributions(result)[0][0], {1: 0.8, 4: 0.2})
    assert_same_distribution(distributions(result)[1][0], {2: 0.75, 3: 0.25})
    rows = [{1: 0.8, 4: 0.2}, {2: 0.75, 3: 0.25}, {4: 1.0}]
    result = aligned(window([1, 2, 4], rows), [1, 3], VocabularyMap(bytes_, characters))
    assert kinds(result) == [Alignment.CHAINED, Alignment.EXACT]
    assert_same_distribution(distributions(result)[0][0], {1: 0.6, 2: 0.2, 3: 0.2})
