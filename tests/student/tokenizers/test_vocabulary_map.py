"""The first student token of a text, by the longest match or by the student's tokenizer."""

import numpy as np

from student.tokenizers.vocabulary_map import END_OF_TEXT, EXCLUDED, NO_TOKEN, VocabularyMap
from tests.student.tokenizers.markov_teacher import aligned, assert_same_distribution, distributions, vocabulary, window


def test_the_student_s_tokenizer_decides_where_it_is_given() -> None:
    """A BPE need not take the longest token first."""
    teacher, student = vocabulary("abcd", "b", "x"), vocabulary("ab", "abc", "cd", "d", "a", "b", "c", "x")
    split = {b"abcd": [1, 3], b"xb": [8, 6], b"b": [6], b"x": [8]}
    distribution = {1: 0.5, 2: 0.25, 3: 0.25}
    for segment, first in ((None, 2), (split.get, 1)):
        actual, _ = distributions(aligned(window([3], [distribution]), [8], VocabularyMap(teacher, student, segment)))[
            0
        ]
        assert_same_distribution(actual, {first: 0.5, 6: 0.25, 8: 0.25})


def test_a_first_token_may_depend_on_the_one_before() -> None:
    student = vocabulary("x", "b", "bc", "cd", "d", "xbz")
    split = {b"xbcd": [1, 3, 5], b"bcd": [2, 4]}
    mapping = VocabularyMap(vocabulary("bcd", "x"), student, split.get)
    assert (mapping.first_student_id(b"bcd"), mapping.first_student_id(b"bcd", previous=1)) == (2, 3)
    assert mapping.first_student_id(b"bzd", previous=1) == EXCLUDED


def test_first_tokens() -> None:
    student = vocabulary("a", "ab", "abc", "c", "d", END_OF_TEXT)
    mapping = VocabularyMap(vocabulary("a", "b", "ab", END_OF_TEXT), student)
    assert mapping.first_student_ids(np.array([0, 1, 2, 3, 4])).tolist() == [NO_TOKEN, 1, NO_TOKEN, 2, 6]
    assert (mapping.first_student_id(b"abcd"), mapping.first_student_id(b"ac"), mapping.first_student_id(b"x")) == (
        3,
        1,
        NO_TOKEN,
    )
    assert mapping.first_student_id(b"c", previous=2) == EXCLUDED, "abc is the student's alone"
    assert mapping.first_student_id(b"d", previous=2) == 5
    assert mapping.has_extension(b"ab") and not mapping.has_extension(b"abc")
    assert np.flatnonzero(mapping.extension_bytes(b"ab")).tolist() == [ord("c")]
    assert np.flatnonzero(mapping.extension_bytes(b"")).tolist() == [ord("a"), ord("c"), ord("d")]
