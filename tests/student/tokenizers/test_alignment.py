"""Rows mapped to another vocabulary are the law of the student's next token, as enumeration finds it."""

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.examples.example import Example, Segment
from cache.examples.token_bytes import bytes_of_ids
from cache.rows.record import Window
from cache.rows.sparse_targets import SparseTargets, concatenate, empty_targets
from student.tokenizers.alignment import Aligned, Alignment, align
from student.tokenizers.bpe import learn_tokenizer
from student.tokenizers.vocabulary_map import END, EXCLUDED, NONE, VocabularyMap
from tests.conftest import random_targets

PROMPT = 0


def vocabulary(*texts: str | bytes) -> list[bytes | None]:
    """Ids from 1 on; 0 is the prompt, which says nothing."""
    return [None, *(text.encode() if isinstance(text, str) else text for text in texts)]


def row(entries: Mapping[int, float]) -> SparseTargets:
    """One row; what the entries leave of 1 is its tail."""
    ids = sorted(entries, key=lambda id_: -entries[id_])
    tail = 1 - sum(entries.values())
    return SparseTargets(
        np.array([0, len(ids)]),
        np.array(ids, np.uint32),
        np.log([entries[id_] for id_ in ids]).astype(np.float32),
        np.array([np.log(tail) if tail > 1e-9 else -np.inf], np.float32),
    )


def window(tokens: Sequence[int], rows: Sequence[Mapping[int, float]], own: bool = True) -> Window:
    """A prompt of one token, and what is said after it; rows[i] is the law of tokens[i]."""
    n = len(tokens)
    logprobs = np.full(n + 1, np.nan, np.float32)
    if own:
        logprobs[1:] = np.log([max(law.get(token, 1e-9), 1e-9) for token, law in zip(tokens, rows, strict=True)])
    segments = np.array([Segment.PROMPT] + [Segment.RESPONSE] * n, np.uint8)
    targets = concatenate([*(row(law) for law in rows), empty_targets(1)])
    return Window(np.array([PROMPT, *tokens], np.uint32), segments, targets, logprobs)


def greedy(text: bytes, student: Sequence[bytes | None]) -> list[int]:
    """Ids of a text, the longest that fits first."""
    ids = {data: id_ for id_, data in enumerate(student) if data}
    found = []
    while text:
        length = next(n for n in range(len(text), 0, -1) if text[:n] in ids)
        found.append(ids[text[:length]])
        text = text[length:]
    return found


def aligned(teacher: Window, tokens: Sequence[int], mapping: VocabularyMap) -> Aligned:
    segments = np.array([Segment.PROMPT] + [Segment.RESPONSE] * len(tokens), np.uint8)
    result = align(teacher, np.array([PROMPT, *tokens], np.uint32), segments, mapping)
    result.window.targets.validate(len(mapping.student), "aligned")
    assert result.window.targets.counts[-1] == 0, "nothing follows the last token"
    return result


def laws(result: Aligned) -> list[tuple[dict[int, float], float]]:
    """Masses by id, and the tail, for each spoken token."""
    targets = result.window.targets
    found = []
    for i in range(len(targets) - 1):
        one = targets.rows(i, i + 1)
        masses = np.exp(one.logprobs.astype(np.float64))
        found.append((dict(zip(one.ids.tolist(), masses.tolist(), strict=True)), float(np.exp(one.log_tail[0]))))
    return found


def kinds(result: Aligned) -> list[Alignment]:
    return [Alignment(kind) for kind in result.kinds[1:]]


@dataclass(frozen=True)
class Process:
    """A teacher whose tokens form a Markov chain: law[i, j] is the probability of j after i; 0 is the prompt."""

    texts: list[bytes | None]
    law: npt.NDArray[np.float64]

    @classmethod
    def random(cls, texts: list[bytes | None], seed: int) -> "Process":
        law = np.random.default_rng(seed).dirichlet(np.full(len(texts) - 1, 0.7), len(texts)) * 0.9 + 0.1 / len(
            texts[1:]
        )
        return cls(texts, np.pad(law, ((0, 0), (1, 0))))

    def sample(self, n: int, seed: int) -> list[int]:
        rng = np.random.default_rng(seed)
        tokens = [PROMPT]
        for _ in range(n):
            tokens.append(int(rng.choice(len(self.texts), p=self.law[tokens[-1]])))
        return tokens[1:]

    def window(self, tokens: Sequence[int]) -> Window:
        rows = [{id_: float(p) for id_, p in enumerate(self.law[before]) if p} for before in [PROMPT, *tokens[:-1]]]
        return window(tokens, rows)

    def continuations(self, before: int, length: int) -> list[tuple[bytes, float]]:
        """Every text of at least `length` bytes that may follow, and its probability."""
        if length <= 0:
            return [(b"", 1.0)]
        return [
            ((self.texts[id_] or b"") + text, float(p) * mass)
            for id_, p in enumerate(self.law[before])
            if p
            for text, mass in self.continuations(id_, length - len(self.texts[id_] or b""))
        ]


def truth(process: Process, said: Sequence[int], student: Sequence[bytes | None], place: int) -> dict[int, float]:
    """The law of the student's token at `place`, by enumeration of what the teacher may write from there.

    Given what is known there: the teacher's whole tokens before, and the student's.
    """
    texts = [process.texts[id_] or b"" for id_ in said]
    heard = greedy(b"".join(texts), student)
    start = sum(len(student[id_] or b"") for id_ in heard[:place])
    edges = np.cumsum([0, *map(len, texts)])
    i = int(np.searchsorted(edges, start, side="right")) - 1
    past, consumed = b"".join(texts[:i]), b"".join(texts)[edges[i] : start]
    longest = max(len(data) for data in student if data)
    law: dict[int, float] = {}
    for text, mass in process.continuations([PROMPT, *said][i], len(consumed) + longest):
        if text.startswith(consumed):
            cut = greedy(past + text, student)
            if cut[:place] == heard[:place]:
                law[cut[place]] = law.get(cut[place], 0.0) + mass
    total = sum(law.values())
    return {id_: mass / total for id_, mass in law.items()}


def assert_same_law(found: Mapping[int, float], wanted: Mapping[int, float]) -> None:
    assert {id_: round(mass, 5) for id_, mass in found.items()} == pytest.approx(
        {id_: mass for id_, mass in wanted.items() if mass > 1e-6}, abs=2e-5
    )


@pytest.mark.parametrize("seed", range(4))
def test_a_student_of_bytes_gets_the_law_of_the_next_byte(seed: int) -> None:
    process = Process.random(vocabulary("abc", "abd", "ba", "bb", "ca", "cbab"), seed)
    student = vocabulary("a", "b", "c", "d")
    said = process.sample(12, seed)
    result = aligned(
        process.window(said),
        greedy(b"".join(process.texts[id_] or b"" for id_ in said), student),
        VocabularyMap(process.texts, student),
    )
    assert Counter(kinds(result)) == {
        Alignment.EXACT: 12,
        Alignment.INSIDE: sum(len(process.texts[id_] or b"") - 1 for id_ in said),
    }
    for place, (law, tail) in enumerate(laws(result)):
        assert tail < 1e-6
        assert_same_law(law, truth(process, said, student, place))


@pytest.mark.parametrize("seed", range(4))
def test_a_longer_student_token_gets_the_mass_of_all_ways_to_it(seed: int) -> None:
    process = Process.random(vocabulary("a", "b", "c"), seed)
    student = vocabulary("a", "b", "c", "ab")
    said = [*process.sample(12, seed), 1, 2, 1, 3]
    text = b"".join(process.texts[id_] or b"" for id_ in said)
    heard = greedy(text, student)
    result = aligned(process.window(said), heard, VocabularyMap(process.texts, student))
    assert Counter(kinds(result)) == {Alignment.EXACT: len(heard) - heard.count(4), Alignment.CHAINED: heard.count(4)}
    start = met = 0
    for place, (law, tail) in enumerate(laws(result)):
        wanted = truth(process, said, student, place)
        last = start + 1 == len(text)
        if text[start : start + 1] == b"a" and not last:  # what follows a is told by the next row
            assert_same_law(law, wanted)
            met += 1
        else:  # how an "a" that did not come would have gone on is not
            joined = {id_: mass for id_, mass in wanted.items() if id_ != 4}
            if 1 in joined or 4 in wanted:
                joined[1] = wanted.get(1, 0.0) + wanted.get(4, 0.0)
            assert_same_law(law, joined)
        assert tail < 1e-6
        if place and heard[place - 1] == 1:
            assert 2 not in law, "b after a would have been ab"
        start += len(student[heard[place]] or b"")
    assert met


@pytest.mark.parametrize("seed", range(4))
def test_chains_run_over_many_teacher_tokens(seed: int) -> None:
    process = Process.random(vocabulary("a", "b", "c"), seed)
    student = vocabulary("a", "b", "c", "ab", "abc", "abca")
    for end in (b"abcab", b"abcc", b"abab"):
        said = [{97: 1, 98: 2, 99: 3}[byte] for byte in b"ccb" + end]
        heard = greedy(b"ccb" + end, student)
        result = aligned(process.window(said), heard, VocabularyMap(process.texts, student))
        law, _ = laws(result)[3]
        wanted = truth(process, said, student, 3)
        if end == b"abab":  # c did not come after ab, and how it would have gone on is not told
            wanted[5] = wanted[5] + wanted.pop(6)
        assert_same_law(law, wanted)
        assert kinds(result)[3] == Alignment.CHAINED


def test_two_segmentations_of_one_text_have_the_same_probability() -> None:
    """The student's conditionals multiply to the teacher's probability of the text. Rows one too early do not."""
    process = Process.random(vocabulary("abc", "abd", "ba", "bb", "ca", "cbab"), 5)
    said = process.sample(40, 5)
    student = vocabulary("a", "b", "c", "d")
    heard = greedy(b"".join(process.texts[id_] or b"" for id_ in said), student)
    teacher = process.window(said)
    found = laws(aligned(teacher, heard, VocabularyMap(process.texts, student)))
    told = sum(np.log(law[id_]) for (law, _), id_ in zip(found, heard, strict=True))
    assert told == pytest.approx(float(teacher.token_logprobs[1:].sum()), rel=1e-5)


def test_entries_with_one_first_token_are_added() -> None:
    teacher, student = (
        vocabulary("hello", "help", "hey", "no", b"\xfe"),
        vocabulary("he", "hel", "l", "y", "no", "o", "p"),
    )
    law = {1: 0.4, 2: 0.2, 3: 0.1, 4: 0.1, 5: 0.15}
    result = aligned(window([4], [law]), [5], VocabularyMap(teacher, student))
    (found, tail) = laws(result)[0]
    assert_same_law(found, {2: 0.6, 1: 0.1, 5: 0.1})
    assert tail == pytest.approx(0.05 + 0.15), "what has no token of the student is tail"


def test_inside_a_token_only_what_begins_alike_counts() -> None:
    teacher = vocabulary("hello", "help", "he", "no", "h", "x")
    student = vocabulary("he", "llo", "lp", "no", "x", "h", "e", "l", "o", "p")
    mapping = VocabularyMap(teacher, student)
    law = {1: 0.5, 2: 0.25, 4: 0.19, 3: 0.02, 5: 0.01, 6: 0.01, PROMPT: 0.01}  # and a tail of 0.01
    result = aligned(window([1], [law]), [1, 2], mapping)
    assert kinds(result) == [Alignment.EXACT, Alignment.INSIDE]
    found, tail = laws(result)[1]
    whole = 0.5 + 0.25 + 0.02 + 0.01 + 0.01 + 0.01
    assert_same_law(found, {2: 0.5 / whole, 3: 0.25 / whole})
    assert tail == pytest.approx(0.05 / whole), "he, h, the tail and what says nothing may go on with anything"


def test_inside_a_token_too_much_that_is_unknown_masks() -> None:
    teacher = vocabulary("hello", "help", "he", "no")
    mapping = VocabularyMap(teacher, vocabulary("he", "llo", "lp", "no", "h", "e", "l", "o", "p"))
    for prefix, kind in ((0.08, Alignment.INSIDE), (0.12, Alignment.MASKED)):
        law = {1: 0.45, 2: 0.45 - prefix / 2, 3: prefix, 4: 0.05}
        result = aligned(window([1], [law]), [1, 2], mapping)
        assert kinds(result)[1] == kind
        assert (len(laws(result)[1][0]) == 0) == (kind == Alignment.MASKED)


def test_a_token_that_is_no_entry_is_taken_from_the_tail() -> None:
    teacher, student = vocabulary("a", "b", "c"), vocabulary("a", "b", "c", "ab")
    rows = [{3: 0.7}, {3: 0.5, 1: 0.2}]
    source = window([1, 2], rows)
    source.token_logprobs[1:] = np.log([0.2, 0.25])
    found, tail = laws(aligned(source, [4], VocabularyMap(teacher, student)))[0]
    assert_same_law(found, {3: 0.7, 4: 0.2 * 0.25, 1: 0.2 * 0.75})
    assert tail == pytest.approx(0.1)
    source.token_logprobs[:] = np.nan
    found, tail = laws(aligned(source, [4], VocabularyMap(teacher, student)))[0]
    assert_same_law(found, {3: 0.7})
    assert tail == pytest.approx(0.3)


def test_a_longer_token_needs_every_row_that_it_covers() -> None:
    teacher, student = vocabulary("a", "b", "c"), vocabulary("a", "b", "c", "abc")
    source = window([1, 2, 3], [{1: 0.5, 2: 0.5}, {2: 1.0}, {3: 1.0}])
    assert kinds(aligned(source, [4], VocabularyMap(teacher, student))) == [Alignment.CHAINED]
    for missing in (1, 2):
        parts = [source.targets.rows(i, i + 1) if i != missing else empty_targets(1) for i in range(4)]
        gap = Window(source.tokens, source.segments, concatenate(parts), source.token_logprobs)
        assert kinds(aligned(gap, [4], VocabularyMap(teacher, student))) == [Alignment.MASKED]


def test_a_token_of_both_that_the_teacher_wrote_in_two_has_the_mass_of_both_ways() -> None:
    texts = vocabulary("a", "b", "ab")
    source = window([1, 2], [{1: 0.5, 3: 0.3, 2: 0.2}, {2: 0.25, 1: 0.75}])
    result = aligned(source, [3], VocabularyMap(texts, texts))
    assert kinds(result) == [Alignment.CHAINED]
    assert_same_law(laws(result)[0][0], {3: 0.3 + 0.5 * 0.25, 1: 0.5 * 0.75, 2: 0.2})


@pytest.mark.parametrize("said, heard", [([1, 3], [1, 3]), ([1, 1, 2], [1, 4])])
def test_what_would_have_been_joined_is_left_out(said: list[int], heard: list[int]) -> None:
    """After "a" no "b" comes: that would be "ab". How much of the tail would be too is not known."""
    mapping = VocabularyMap(vocabulary("a", "b", "c"), vocabulary("a", "b", "c", "ab"))
    for joined, kept in ((0.3, True), (0.5, False)):
        law = {2: joined, said[1]: 0.85 - joined}
        result = aligned(window(said, [{1: 1.0}, law, {2: 1.0}][: len(said)]), heard, mapping)
        found, tail = laws(result)[1]
        assert bool(found) == kept and (kinds(result)[1] != Alignment.MASKED) == kept
        if kept:
            assert_same_law(found, {heard[1]: 0.55 / 0.7})
            assert tail == pytest.approx(0.15 / 0.7)


def test_what_came_can_come() -> None:
    """A tokenizer that does not take the longest token first is not told that it never writes what it wrote."""
    teacher, student = vocabulary("a", "b", "c"), vocabulary("a", "b", "c", "ab", "bc")
    mapping = VocabularyMap(teacher, student)
    rows = [{1: 1.0}, {2: 0.6, 1: 0.2, 3: 0.2}]
    found, _ = laws(aligned(window([1, 2], rows), [1, 2], mapping))[1]
    assert_same_law(found, {2: 0.6, 1: 0.2, 3: 0.2})
    found, _ = laws(aligned(window([1, 2, 3], [*rows, {3: 0.5, 1: 0.5}]), [1, 5], mapping))[1]
    assert_same_law(found, {5: 0.3, 2: 0.3, 1: 0.2, 3: 0.2})


def test_characters_are_split_and_joined() -> None:
    e_acute, e_grave = "é".encode(), "è".encode()
    whole, parts = vocabulary("é", "è", "x"), vocabulary(e_acute[:1], e_acute[1:], e_grave[1:], "x")
    result = aligned(window([1, 3], [{1: 0.6, 2: 0.2, 3: 0.2}, {3: 1.0}]), [1, 2, 4], VocabularyMap(whole, parts))
    assert kinds(result) == [Alignment.EXACT, Alignment.INSIDE, Alignment.EXACT]
    assert_same_law(laws(result)[0][0], {1: 0.8, 4: 0.2})
    assert_same_law(laws(result)[1][0], {2: 0.75, 3: 0.25})
    rows = [{1: 0.8, 4: 0.2}, {2: 0.75, 3: 0.25}, {4: 1.0}]
    result = aligned(window([1, 2, 4], rows), [1, 3], VocabularyMap(parts, whole))
    assert kinds(result) == [Alignment.CHAINED, Alignment.EXACT]
    assert_same_law(laws(result)[0][0], {1: 0.6, 2: 0.2, 3: 0.2})


@pytest.mark.parametrize("seed", range(3))
def test_equal_vocabularies_give_equal_rows(seed: int) -> None:
    """Also of rows that make no sense: the teacher's mass for "th" and "e" in two is not moved to "the"."""
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
    ours, wanted = result.window.targets, np.flatnonzero(targets.ids != PROMPT)
    assert np.array_equal(ours.ids, targets.ids[wanted]), "but for the id that says nothing"
    np.testing.assert_allclose(ours.logprobs, targets.logprobs[wanted], rtol=1e-6)
    same = np.bincount(targets.row_of_entry[targets.ids == PROMPT], minlength=n + 1) == 0
    np.testing.assert_allclose(ours.log_tail[same], targets.log_tail[same], rtol=1e-5)
    assert np.array_equal(result.window.segments, segments) and np.isnan(result.window.token_logprobs).all()


def test_the_row_before_a_token_tells_that_token() -> None:
    texts = vocabulary("one", "two", "three", "four")
    said = [1, 2, 3, 4, 2, 1]
    source = window(said, [{id_: 0.9, 1 + id_ % 4: 0.1} for id_ in said])
    student = vocabulary(*"onetwhrfu")
    heard = greedy(b"".join(texts[id_] or b"" for id_ in said), student)
    for mapping, tokens in ((VocabularyMap(texts, texts), said), (VocabularyMap(texts, student), heard)):
        result = aligned(source, tokens, mapping)
        targets = result.window.targets
        assert targets.ids[targets.offsets[:-2]].tolist() == tokens, "the likeliest of row j is token j + 1"


def test_after_the_texts_part_nothing_is_told() -> None:
    texts = vocabulary("ab", "cd", "a", "b", "c", "d", "e")
    source = window([1, 2, 1], [{1: 0.5, 2: 0.5}] * 3)
    mapping = VocabularyMap(texts, texts)
    same = aligned(source, [1, 2, 1], mapping)
    other = aligned(source, [1, 5, 7, 1], mapping)
    expected = [Alignment.EXACT, Alignment.EXACT, Alignment.INSIDE, Alignment.MASKED]
    assert kinds(other) == expected, "what comes after abc is still told, though it was another byte"
    assert laws(other)[:1] == laws(same)[:1] and laws(other)[2][0].keys() == {6}
    longer = aligned(source, [1, 2, 1, 2], mapping)
    assert kinds(longer) == [*kinds(same), Alignment.MASKED]


def test_a_space_that_a_tokenizer_puts_first_costs_one_token() -> None:
    texts = vocabulary(" one", "one", " ", " two", "two", "o", "ne")
    rows = [{1: 0.5, 2: 0.5}, {4: 0.5, 5: 0.5}]
    mapping = VocabularyMap(texts, texts)
    for said, heard in (([1, 4], [2, 4]), ([2, 4], [1, 4]), ([2, 4], [3, 2, 4])):
        result = aligned(window(said, rows), heard, mapping)
        if heard == [3, 2, 4]:
            assert kinds(result) == [Alignment.MASKED, Alignment.EXACT, Alignment.EXACT]
        else:
            assert kinds(result) == [Alignment.MASKED, Alignment.EXACT]
        assert_same_law(laws(result)[-1][0], {4: 0.5, 5: 0.5})
    result = aligned(window([1, 4], rows), [6, 7, 4], mapping)
    assert kinds(result) == [Alignment.MASKED, Alignment.MASKED, Alignment.EXACT], "the row is that of ' one'"


def test_turns_are_aligned_one_by_one() -> None:
    texts = vocabulary("ab", "c")
    student = vocabulary("a", "b", "c")
    mapping = VocabularyMap(texts, student)
    laws_of = [{1: 0.75, 2: 0.25}, {1: 0.25, 2: 0.75}]
    one, two = window([1], laws_of[:1]), window([2], laws_of[1:])
    whole = Window(
        np.concatenate([one.tokens, two.tokens]),
        np.concatenate([one.segments, two.segments]),
        concatenate([one.targets, two.targets]),
        np.concatenate([one.token_logprobs, two.token_logprobs]),
    )
    tokens, segments = np.array([0, 1, 2, 0, 0, 3], np.uint32), np.array([0, 3, 3, 0, 0, 3], np.uint8)
    result = align(whole, tokens, segments, mapping)
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
    assert_same_law(laws(result)[4][0], {1: 0.25, 3: 0.75})
    other = align(whole, tokens[:3], segments[:3], mapping)
    assert other.kinds.tolist() == [Alignment.PROMPT, Alignment.MASKED, Alignment.MASKED], "another number of turns"
    assert len(other.window.targets.ids) == 0


def test_labels_are_where_the_teacher_has_them() -> None:
    texts, student = vocabulary("ab", "cd", "ef"), vocabulary(*"abcdef")
    source = window([1, 2, 3], [{1: 0.5, 2: 0.25, 3: 0.25}] * 3)
    source.segments[1:] = [Segment.RATIONALE, Segment.LABEL, Segment.RESPONSE]
    segments = np.array([Segment.PROMPT, *[Segment.RATIONALE] * 3, *[Segment.RESPONSE] * 3], np.uint8)
    result = align(source, np.arange(7, dtype=np.uint32), segments, VocabularyMap(texts, student))
    assert result.window.segments.tolist() == [0, 1, 1, 2, 2, 3, 3]
    assert segments.tolist() == [0, 1, 1, 1, 3, 3, 3], "what was given is left as it was"


def test_a_response_cut_on_the_left_is_masked() -> None:
    """Texts that begin alike by chance do not make what precedes them the same."""
    texts = vocabulary("a", "b", "c")
    source = window([1, 2, 1, 3], [{1: 0.5, 2: 0.25, 3: 0.25}] * 4).part(1, 5)
    segments = np.array([0, 3, 3, 3], np.uint8)
    result = align(source, np.array([0, 1, 3, 3], np.uint32), segments, VocabularyMap(texts, texts))
    assert set(kinds(result)) == {Alignment.MASKED}


def test_the_student_s_tokenizer_decides_where_it_is_given() -> None:
    """A BPE need not take the longest token first."""
    teacher, student = vocabulary("abcd", "b", "x"), vocabulary("ab", "abc", "cd", "d", "a", "b", "c", "x")
    split = {b"abcd": [1, 3], b"xb": [8, 6], b"b": [6], b"x": [8]}
    law = {1: 0.5, 2: 0.25, 3: 0.25}
    for segment, first in ((None, 2), (split.get, 1)):
        found, _ = laws(aligned(window([3], [law]), [8], VocabularyMap(teacher, student, segment)))[0]
        assert_same_law(found, {first: 0.5, 6: 0.25, 8: 0.25})


def test_a_first_token_may_depend_on_the_one_before() -> None:
    student = vocabulary("x", "b", "bc", "cd", "d", "xbz")
    split = {b"xbcd": [1, 3, 5], b"bcd": [2, 4]}
    mapping = VocabularyMap(vocabulary("bcd", "x"), student, split.get)
    assert (mapping.first(b"bcd"), mapping.first(b"bcd", after=1)) == (2, 3)
    assert mapping.first(b"bzd", after=1) == EXCLUDED


def test_first_tokens() -> None:
    student = vocabulary("a", "ab", "abc", "c", "d", END)
    mapping = VocabularyMap(vocabulary("a", "b", "ab", END), student)
    assert mapping.firsts(np.array([0, 1, 2, 3, 4])).tolist() == [NONE, 1, NONE, 2, 6]
    assert (mapping.first(b"abcd"), mapping.first(b"ac"), mapping.first(b"x")) == (3, 1, NONE)
    assert mapping.first(b"c", after=2) == EXCLUDED, "abc is the student's alone"
    assert mapping.first(b"d", after=2) == 5
    assert mapping.begins_own(b"ab") and not mapping.begins_own(b"abc")
    assert np.flatnonzero(mapping.next_bytes(b"ab")).tolist() == [ord("c")]
    assert np.flatnonzero(mapping.next_bytes(b"")).tolist() == [ord("a"), ord("c"), ord("d")]


texts_of = st.lists(st.text("abc", min_size=1, max_size=4), min_size=2, max_size=8, unique=True)


@settings(max_examples=150, deadline=None)
@given(texts_of, texts_of, st.integers(0, 2**31), st.booleans(), st.floats(0, 0.6))
def test_mass_is_conserved(here: list[str], there: list[str], seed: int, own: bool, tail: float) -> None:
    rng = np.random.default_rng(seed)
    teacher, student = vocabulary(*here), vocabulary(*dict.fromkeys([*there, *"abc"]))
    said = rng.integers(1, len(teacher), 12).tolist()
    rows = []
    for _ in said:
        ids = rng.permutation(np.arange(1, len(teacher)))[: rng.integers(1, len(teacher))]
        rows.append(dict(zip(ids.tolist(), (rng.dirichlet(np.ones(len(ids))) * (1 - tail)).tolist(), strict=True)))
    heard = greedy(b"".join(teacher[id_] or b"" for id_ in said), student)
    source = window(said, rows, own)
    source.token_logprobs[1:] = np.maximum(source.token_logprobs[1:], np.float32(-5))
    result = aligned(source, heard, VocabularyMap(teacher, student))
    for kind, (law, rest) in zip(kinds(result), laws(result), strict=True):
        assert (kind == Alignment.MASKED) == (not law)
        if law:
            assert sum(law.values()) + rest == pytest.approx(1, abs=1e-5)
    assert result.window.tokens.tolist() == [PROMPT, *heard]


def bigrams(coded: Sequence[Sequence[int]]) -> dict[int, dict[int, float]]:
    """The likeliest 64 followers of each id, most first."""
    counts: dict[int, Counter[int]] = {}
    for ids in coded:
        for before, after in pairwise(ids):
            counts.setdefault(before, Counter())[after] += 1
    return {
        before: {id_: count / found.total() for id_, count in found.most_common(64)} for before, found in counts.items()
    }


def edges(ids: Sequence[int], texts: Sequence[bytes | None]) -> list[int]:
    return np.cumsum([0, *(len(texts[id_] or b"") for id_ in ids)]).tolist()


@pytest.mark.parametrize(("here", "there"), [(400, 900), (900, 400)])
def test_learned_tokenizers_of_two_sizes(here: int, there: int) -> None:
    """Where the two tokenisations meet again, what the laws say of the bytes between has one probability in both."""
    lines = Path(argparse.__file__).read_text().splitlines(keepends=True)
    texts = ["".join(lines[i : i + 12]) for i in range(0, len(lines), 12)]
    examples = [Example(str(i), (), response=text) for i, text in enumerate(texts)]
    teacher, student = learn_tokenizer(examples, here), learn_tokenizer(examples, there)
    said_texts, heard_texts = bytes_of_ids(teacher, len(teacher)), bytes_of_ids(student, len(student))
    mapping = VocabularyMap(said_texts, heard_texts, lambda data: student.backend_tokenizer.encode(data.decode()).ids)
    coded = [[PROMPT, *teacher(text, add_special_tokens=False)["input_ids"]] for text in texts]
    followers = bigrams(coded)
    counts: Counter[Alignment] = Counter()
    ours = theirs = 0.0
    for text, ids in zip(texts[::8], coded[::8], strict=True):
        said, heard = ids[1:], student(text, add_special_tokens=False)["input_ids"]
        source = window(said, [followers[before] for before in ids[:-1]])
        result = aligned(source, heard, mapping)
        counts.update(kinds(result))
        told = [law.get(id_, 0.0) for (law, _), id_ in zip(laws(result), heard, strict=True)]
        said_edges, heard_edges = edges(said, said_texts), edges(heard, heard_texts)
        for start, end in pairwise(sorted(set(said_edges) & set(heard_edges))):
            first, last = heard_edges.index(start), heard_edges.index(end)
            if all(told[first:last]):  # neither masked nor in a tail
                ours -= float(np.log(told[first:last]).sum())
                theirs -= float(source.token_logprobs[1:][said_edges.index(start) : said_edges.index(end)].sum())
    assert theirs > 5000 and ours == pytest.approx(theirs, rel=0.04)
    if here < there:
        assert set(counts) == {Alignment.EXACT, Alignment.CHAINED}
    else:
        assert set(counts) == {Alignment.EXACT, Alignment.INSIDE, Alignment.MASKED}
        assert counts[Alignment.MASKED] < 0.2 * counts.total()
