"""Rows mapped to another vocabulary are the distribution of the student's next token, compared with enumeration."""

import argparse
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.examples.example import Example, Segment
from cache.examples.token_bytes import bytes_of_ids
from cache.rows.record import Window
from cache.rows.sparse_targets import concatenate, empty_targets
from student.tokenizers.alignment import Alignment, align
from student.tokenizers.bpe import learn_tokenizer
from student.tokenizers.vocabulary_map import VocabularyMap
from tests.records import random_targets
from tests.student.tokenizers.markov_teacher import (
    PROMPT,
    Process,
    aligned,
    assert_same_distribution,
    distributions,
    enumerated_distribution,
    greedy,
    kinds,
    vocabulary,
    window,
)


@pytest.mark.parametrize("seed", range(4))
def test_a_byte_student_gets_the_distribution_of_the_next_byte(seed: int) -> None:
    process = Process.random(vocabulary("abc", "abd", "ba", "bb", "ca", "cbab"), seed)
    student = vocabulary("a", "b", "c", "d")
    teacher_tokens = process.sample(12, seed)
    result = aligned(
        process.window(teacher_tokens),
        greedy(b"".join(process.texts[id_] or b"" for id_ in teacher_tokens), student),
        VocabularyMap(process.texts, student),
    )
    assert Counter(kinds(result)) == {
        Alignment.EXACT: 12,
        Alignment.INSIDE: sum(len(process.texts[id_] or b"") - 1 for id_ in teacher_tokens),
    }
    for position, (distribution, tail) in enumerate(distributions(result)):
        assert tail < 1e-6
        assert_same_distribution(distribution, enumerated_distribution(process, teacher_tokens, student, position))


@pytest.mark.parametrize("seed", range(4))
def test_a_longer_student_token_gets_the_mass_of_all_ways_to_it(seed: int) -> None:
    process = Process.random(vocabulary("a", "b", "c"), seed)
    student = vocabulary("a", "b", "c", "ab")
    teacher_tokens = [*process.sample(12, seed), 1, 2, 1, 3]
    text = b"".join(process.texts[id_] or b"" for id_ in teacher_tokens)
    student_tokens = greedy(text, student)
    result = aligned(process.window(teacher_tokens), student_tokens, VocabularyMap(process.texts, student))
    assert Counter(kinds(result)) == {
        Alignment.EXACT: len(student_tokens) - student_tokens.count(4),
        Alignment.CHAINED: student_tokens.count(4),
    }
    start = compared = 0
    for position, (distribution, tail) in enumerate(distributions(result)):
        expected = enumerated_distribution(process, teacher_tokens, student, position)
        last = start + 1 == len(text)
        if text[start : start + 1] == b"a" and not last:  # the next row contains the continuation of a
            assert_same_distribution(distribution, expected)
            compared += 1
        else:  # the continuation of an "a" that did not occur is unknown
            joined = {id_: mass for id_, mass in expected.items() if id_ != 4}
            if 1 in joined or 4 in expected:
                joined[1] = expected.get(1, 0.0) + expected.get(4, 0.0)
            assert_same_distribution(distribution, joined)
        assert tail < 1e-6
        if position and student_tokens[position - 1] == 1:
            assert 2 not in distribution, "the student merges a and b"
        start += len(student[student_tokens[position]] or b"")
    assert compared


@pytest.mark.parametrize("seed", range(4))
def test_chains_run_over_many_teacher_tokens(seed: int) -> None:
    process = Process.random(vocabulary("a", "b", "c"), seed)
    student = vocabulary("a", "b", "c", "ab", "abc", "abca")
    for end in (b"abcab", b"abcc", b"abab"):
        teacher_tokens = [{97: 1, 98: 2, 99: 3}[byte] for byte in b"ccb" + end]
        student_tokens = greedy(b"ccb" + end, student)
        result = aligned(process.window(teacher_tokens), student_tokens, VocabularyMap(process.texts, student))
        distribution, _ = distributions(result)[3]
        expected = enumerated_distribution(process, teacher_tokens, student, 3)
        if end == b"abab":  # c did not occur after ab, so its continuation is unknown
            expected[5] = expected[5] + expected.pop(6)
        assert_same_distribution(distribution, expected)
        assert kinds(result)[3] == Alignment.CHAINED


def test_two_segmentations_of_one_text_have_the_same_probability() -> None:
    """The student's conditionals multiply to the teacher's probability of the text. Rows one too early do not."""
    process = Process.random(vocabulary("abc", "abd", "ba", "bb", "ca", "cbab"), 5)
    teacher_tokens = process.sample(40, 5)
    student = vocabulary("a", "b", "c", "d")
    student_tokens = greedy(b"".join(process.texts[id_] or b"" for id_ in teacher_tokens), student)
    teacher = process.window(teacher_tokens)
    actual = distributions(aligned(teacher, student_tokens, VocabularyMap(process.texts, student)))
    log_probability = sum(
        np.log(distribution[id_]) for (distribution, _), id_ in zip(actual, student_tokens, strict=True)
    )
    assert log_probability == pytest.approx(float(teacher.token_logprobs[1:].sum()), rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_equal_vocabularies_give_equal_rows(seed: int) -> None:
    """Also of inconsistent rows: the teacher's mass of "th" followed by "e" is not moved to "the"."""
    rng = np.random.default_rng(seed)
    texts = vocabulary(*sorted({bytes(rng.integers(97, 101, rng.integers(1, 6)).astype(np.uint8)) for _ in range(400)}))
    n = 50
    tokens = rng.integers(1, len(texts), n)
    targets = concatenate([random_targets(rng, n, vocab=len(texts)), empty_targets(1)])
    targets.logprobs[3:6] = targets.logprobs[3]  # entries of equal mass keep their order
    segments = np.array([Segment.PROMPT] + [Segment.RESPONSE] * n, np.uint8)
    logprobs = np.full(n + 1, -1.5, np.float32)
    source = Window(np.array([PROMPT, *tokens], np.uint32), segments, targets, logprobs)
    result = align(source, source.tokens, segments, VocabularyMap(texts, texts))
    assert set(kinds(result)) == {Alignment.EXACT}
    ours, with_text = result.window.targets, np.flatnonzero(targets.ids != PROMPT)
    assert np.array_equal(ours.ids, targets.ids[with_text]), "except the id without text"
    np.testing.assert_allclose(ours.logprobs, targets.logprobs[with_text], rtol=1e-6)
    same = np.bincount(targets.row_of_entry[targets.ids == PROMPT], minlength=n + 1) == 0
    np.testing.assert_allclose(ours.log_tail[same], targets.log_tail[same], rtol=1e-5)
    assert np.array_equal(result.window.segments, segments) and np.isnan(result.window.token_logprobs).all()


texts_of = st.lists(st.text("abc", min_size=1, max_size=4), min_size=2, max_size=8, unique=True)


@settings(max_examples=150, deadline=None)
@given(texts_of, texts_of, st.integers(0, 2**31), st.booleans(), st.floats(0, 0.6))
def test_mass_is_conserved(
    teacher_texts: list[str], student_texts: list[str], seed: int, has_logprobs: bool, tail: float
) -> None:
    rng = np.random.default_rng(seed)
    teacher, student = vocabulary(*teacher_texts), vocabulary(*dict.fromkeys([*student_texts, *"abc"]))
    teacher_tokens = rng.integers(1, len(teacher), 12).tolist()
    rows = []
    for _ in teacher_tokens:
        ids = rng.permutation(np.arange(1, len(teacher)))[: rng.integers(1, len(teacher))]
        rows.append(dict(zip(ids.tolist(), (rng.dirichlet(np.ones(len(ids))) * (1 - tail)).tolist(), strict=True)))
    student_tokens = greedy(b"".join(teacher[id_] or b"" for id_ in teacher_tokens), student)
    source = window(teacher_tokens, rows, has_logprobs)
    source.token_logprobs[1:] = np.maximum(source.token_logprobs[1:], np.float32(-5))
    result = aligned(source, student_tokens, VocabularyMap(teacher, student))
    for kind, (distribution, rest) in zip(kinds(result), distributions(result), strict=True):
        assert (kind == Alignment.MASKED) == (not distribution)
        if distribution:
            assert sum(distribution.values()) + rest == pytest.approx(1, abs=1e-5)
    assert result.window.tokens.tolist() == [PROMPT, *student_tokens]


def bigrams(coded: Sequence[Sequence[int]]) -> dict[int, dict[int, float]]:
    """The likeliest 64 followers of each id, most first."""
    counts: dict[int, Counter[int]] = {}
    for ids in coded:
        for before, after in pairwise(ids):
            counts.setdefault(before, Counter())[after] += 1
    return {
        before: {id_: count / after.total() for id_, count in after.most_common(64)} for before, after in counts.items()
    }


def boundaries(ids: Sequence[int], texts: Sequence[bytes | None]) -> list[int]:
    return np.cumsum([0, *(len(texts[id_] or b"") for id_ in ids)]).tolist()


@pytest.mark.parametrize(("here", "there"), [(400, 900), (900, 400)])
def test_learned_tokenizers_of_two_sizes(here: int, there: int) -> None:
    """Between two boundaries that both tokenisations share, the bytes have the same probability in both."""
    lines = Path(argparse.__file__).read_text().splitlines(keepends=True)
    texts = ["".join(lines[i : i + 12]) for i in range(0, len(lines), 12)]
    examples = [Example(str(i), (), response=text) for i, text in enumerate(texts)]
    teacher, student = learn_tokenizer(examples, here), learn_tokenizer(examples, there)
    teacher_bytes, student_bytes = bytes_of_ids(teacher, len(teacher)), bytes_of_ids(student, len(student))
    mapping = VocabularyMap(
        teacher_bytes, student_bytes, lambda data: student.backend_tokenizer.encode(data.decode()).ids
    )
    coded = [[PROMPT, *teacher(text, add_special_tokens=False)["input_ids"]] for text in texts]
    followers = bigrams(coded)
    counts: Counter[Alignment] = Counter()
    ours = theirs = 0.0
    for text, ids in zip(texts[::8], coded[::8], strict=True):
        teacher_tokens, student_tokens = ids[1:], student(text, add_special_tokens=False)["input_ids"]
        source = window(teacher_tokens, [followers[before] for before in ids[:-1]])
        result = aligned(source, student_tokens, mapping)
        counts.update(kinds(result))
        probabilities = [
            distribution.get(id_, 0.0)
            for (distribution, _), id_ in zip(distributions(result), student_tokens, strict=True)
        ]
        teacher_starts, student_starts = (
            boundaries(teacher_tokens, teacher_bytes),
            boundaries(student_tokens, student_bytes),
        )
        for start, end in pairwise(sorted(set(teacher_starts) & set(student_starts))):
            first, last = student_starts.index(start), student_starts.index(end)
            if all(probabilities[first:last]):  # neither masked nor in a tail
                ours -= float(np.log(probabilities[first:last]).sum())
                theirs -= float(
                    source.token_logprobs[1:][teacher_starts.index(start) : teacher_starts.index(end)].sum()
                )
    assert theirs > 5000 and ours == pytest.approx(theirs, rel=0.04)
    if here < there:
        assert set(counts) == {Alignment.EXACT, Alignment.CHAINED}
    else:
        assert set(counts) == {Alignment.EXACT, Alignment.INSIDE, Alignment.MASKED}
        assert counts[Alignment.MASKED] < 0.2 * counts.total()
