"""A store captured with one tokenizer is read in the tokens of another."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from cache.errors import InputError, SpecMismatchError, StoreError
from cache.examples.example import Example, Segment, TokenizedExample
from cache.examples.token_bytes import bytes_of_ids
from cache.examples.tokenizers import tokenizer_digest
from cache.rendering.render import render
from cache.rows.record import Record
from cache.rows.sparse_targets import SparseTargets, concatenate, empty_targets
from cache.rows.spec import StoreSpec, TargetSpec
from cache.storage.local import LocalStorage
from cache.store.commits import create_store
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from student.tokenizers.alignment import Alignment
from student.tokenizers.cross_tokenizer_store import AlignedShares, CrossTokenizerStore
from student.tokenizers.vocabulary_map import map_vocabularies
from tests.records import random_targets

TOP16 = TargetSpec("topk", 16)
PADDING = 5  # logits that are no token


def examples() -> list[Example]:
    def ask(text: str, role: str = "user") -> tuple[dict[str, str], ...]:
        return ({"role": role, "content": text},)

    def answer(text: str) -> tuple[dict[str, str], ...]:
        return ask(text, "assistant")

    return [
        Example("plain", ask("say one two"), response="one and two"),
        Example("reasoned", ask("say red"), rationale="red is a colour, and ", response="so: red"),
        Example("strange", ask("say it"), response="naïve – 漢字 🙂 one"),
        Example("trace", (*ask("say up"), *answer("up and"), *ask("more"), *answer("three, four"))),
    ]


def record(rng: np.random.Generator, tokenized: TokenizedExample, vocab: int) -> Record:
    """Random rows before the assistant's tokens, in which the next token has a probability of 0.6."""
    n = len(tokenized.tokens)
    rows, logprobs = [], np.full(n, np.nan, np.float32)
    for j in range(n):
        if j + 1 == n or tokenized.segments[j + 1] == Segment.PROMPT:
            rows.append(empty_targets(1))
            continue
        one, following = random_targets(rng, 1, vocab=vocab), tokenized.tokens[j + 1]
        others = one.ids[one.ids != following][:15]
        masses = np.sort(rng.dirichlet(np.ones(15)) * 0.35)[::-1]
        ids, masses = np.append(following, others), np.append(0.6, masses)
        rows.append(
            SparseTargets(np.array([0, 16]), ids, np.log(masses).astype(np.float32), np.log([np.float32(0.05)]))
        )
        logprobs[j + 1] = np.log(0.6)
    return Record(tokenized.key, tokenized, concatenate(rows), logprobs)


@pytest.fixture
def records(teacher: Any) -> list[Record]:
    rng = np.random.default_rng(0)
    return [record(rng, render(example, teacher), len(teacher) + PADDING) for example in examples()]


@pytest.fixture
def capture(tmp_path: Path, teacher: Any) -> Callable[..., LogitStore]:
    def write(records: list[Record], targets: TargetSpec = TOP16, **spec: Any) -> LogitStore:
        vocab, ids = len(teacher) + PADDING, tokenizer_digest(teacher)
        store_spec = replace(StoreSpec("teacher", "w", ids, "c", vocab, len(teacher), "float32", targets, None), **spec)
        storage = LocalStorage(tmp_path / "store")
        create_store(storage, store_spec)
        write_unit(storage, store_spec, records)
        take_snapshot(storage)
        return LogitStore.open(str(tmp_path / "store"))

    return write


def test_examples_are_read_in_the_student_s_tokens(
    capture: Callable[..., LogitStore], records: list[Record], teacher: Any, student: Any
) -> None:
    store = capture(records)
    seen: list[tuple[int, int]] = []
    view = CrossTokenizerStore(store, teacher, student, lambda done, total: seen.append((done, total)))
    assert seen == [(i, 4) for i in range(1, 5)] and len(view) == 4
    windows = view.read(range(4))
    shares = [0] * len(Alignment)
    for i, window in enumerate(windows):
        example = store[i].tokenized.example
        rendered = render(example, student)
        assert np.array_equal(window.tokens, rendered.tokens) and np.array_equal(window.segments, rendered.segments)
        window.targets.validate(view.spec.vocab_size, "mapped")
        assert (len(window), np.count_nonzero(window.targets.counts)) == (view.tokens[i], view.rows[i])
        after = np.append(window.segments[1:], Segment.PROMPT)
        assert not window.targets.counts[after == Segment.PROMPT].any(), "prompts have no targets"
        shares[Alignment.MASKED] += int(np.count_nonzero(window.segments) - view.rows[i])
        one = view[i]
        assert one.key == store.key(i) and one.tokenized.example == example
        assert np.array_equal(one.targets.ids, window.targets.ids)
        assert np.array_equal(one.tokenized.tokens, window.tokens)
    assert view.shares.tokens == sum(np.count_nonzero(window.segments) for window in windows)
    assert view.shares.masked == shares[Alignment.MASKED] < 0.3 * view.shares.tokens
    assert view.shares.exact > 0 and view.shares.chained > 0 and view.shares.inside > 0
    assert view.has_origin(["scored"]).all() and not view.has_origin(["generated"]).any()


def test_the_next_token_is_likely_in_the_student_s_tokens_too(
    capture: Callable[..., LogitStore], records: list[Record], teacher: Any, student: Any
) -> None:
    """The teacher gives each of its tokens 0.6: so a student's token has that, or as many times it as it covers tokens.

    Rows of the token before or after would give it next to nothing.
    """
    texts = bytes_of_ids(student, len(student))
    view = CrossTokenizerStore(capture(records), teacher, student)
    for window in view.read(range(4)):
        targets = window.targets
        for j in np.flatnonzero(targets.counts):
            one = targets.rows(j, j + 1)
            following = int(window.tokens[j + 1])
            assert np.exp(one.logprobs[one.ids == following]).sum() > 0.6 ** len(texts[following] or b"?") * 0.95
            assert np.exp(one.logprobs.astype(np.float64)).sum() + np.exp(one.log_tail[0]) == pytest.approx(1, abs=1e-3)


def test_the_end_of_a_response_is_the_student_s_end(
    capture: Callable[..., LogitStore], records: list[Record], teacher: Any, student: Any
) -> None:
    assert teacher.eos_token_id == student.eos_token_id == 1
    student.eos_token_id = student.convert_tokens_to_ids(student.pad_token)  # another id than the teacher's
    try:
        view = CrossTokenizerStore(capture(records), teacher, student)
        for window in view.read(range(3)):
            assert window.tokens[-1] == student.eos_token_id != teacher.eos_token_id
            last = window.targets.rows(len(window) - 2, len(window) - 1)
            assert last.ids[0] == student.eos_token_id and np.exp(last.logprobs[0]) == pytest.approx(0.6, rel=0.05)
    finally:
        student.eos_token_id = 1


def test_a_response_that_was_cut_does_not_end(
    capture: Callable[..., LogitStore], records: list[Record], teacher: Any, student: Any
) -> None:
    """As if the teacher reached its maximum number of tokens."""
    rows, original = records[0].targets, records[0].tokenized
    n = len(original.tokens) - 2
    text = teacher.decode(original.tokens[original.prompt_length : n].tolist())
    tokenized = TokenizedExample(
        replace(original.example, response=text), original.tokens[:n], original.segments[:n], "generated/0"
    )
    targets = concatenate([rows.rows(0, n - 1), empty_targets(1)])
    cut = Record(original.key, tokenized, targets, records[0].token_logprobs[:n])
    view = CrossTokenizerStore(capture([cut, records[1]]), teacher, student)
    i = int(np.flatnonzero(view.has_origin(["generated"]))[0])
    (window,) = view.read([i])
    assert window.tokens[-1] != student.eos_token_id
    assert student.decode(window.tokens[window.segments != Segment.PROMPT].tolist()) == text
    assert view.read([1 - i])[0].tokens[-1] == student.eos_token_id


def test_the_teacher_s_own_tokenizer_gives_the_store_s_rows(
    capture: Callable[..., LogitStore], records: list[Record], teacher: Any
) -> None:
    store = capture(records)
    view = CrossTokenizerStore(store, teacher, teacher)
    assert view.shares.exact == view.shares.tokens and view.shares.masked == 0
    assert np.array_equal(view.tokens, store.tokens)
    ids_with_bytes = {
        id_ for id_, data in enumerate(map_vocabularies(teacher, store.spec.vocab_size, teacher).teacher_bytes) if data
    }
    for ours, stored in zip(view.read(range(4)), store.read(range(4)), strict=True):
        assert np.array_equal(ours.tokens, stored.tokens) and np.array_equal(ours.segments, stored.segments)
        has_bytes = np.isin(stored.targets.ids, list(ids_with_bytes))  # roles, padding of the logits: no bytes
        assert np.array_equal(ours.targets.ids, stored.targets.ids[has_bytes])
        np.testing.assert_allclose(ours.targets.logprobs, stored.targets.logprobs[has_bytes], atol=1e-5)


def test_labels_are_those_of_the_store(
    capture: Callable[..., LogitStore], records: list[Record], teacher: Any, student: Any
) -> None:
    original = records[0].tokenized
    segments = original.segments.copy()
    segments[-3:-1] = Segment.LABEL
    tokenized = replace(original, segments=segments)
    view = CrossTokenizerStore(capture([replace(records[0], tokenized=tokenized)]), teacher, student)
    (window,) = view.read([0])
    label = student.decode(window.tokens[window.segments == Segment.LABEL].tolist())
    assert label and teacher.decode(original.tokens[-3:-1].tolist()).endswith(label)


def test_the_spec_describes_the_aligned_rows(
    capture: Callable[..., LogitStore], records: list[Record], teacher: Any, student: Any
) -> None:
    spec = CrossTokenizerStore(capture(records, asked="all"), teacher, student).spec
    assert spec.tokenizer == tokenizer_digest(student) != tokenizer_digest(teacher)
    assert spec.vocab_size == spec.tokenizer_size == len(student)
    assert spec.asked == "assistant" and not spec.targets.entropy and spec.targets.temperatures == ()


def test_other_tokenizers_and_sampled_targets_are_rejected(
    capture: Callable[..., LogitStore], records: list[Record], teacher: Any, student: Any, tmp_path: Path
) -> None:
    store = capture(records)
    with pytest.raises(SpecMismatchError, match="another tokenizer"):
        CrossTokenizerStore(store, student, student)
    words = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"[UNK]": 0, "the": 1}, unk_token="[UNK]"))
    )
    with pytest.raises(InputError, match=r"have no bytes of their own.*use the teacher's own"):
        CrossTokenizerStore(store, teacher, words)
    for targets in (TargetSpec("threshold", threshold=0.1), TargetSpec("sampled", draws=20)):
        sampled = LogitStore(store.storage, replace(store.spec, targets=targets), store.index, 1, frozenset())
        with pytest.raises(StoreError, match="topk or nucleus"):
            CrossTokenizerStore(sampled, teacher, student)


def test_texts_without_targets_are_read_too(
    capture: Callable[..., LogitStore], records: list[Record], teacher: Any, student: Any
) -> None:
    texts = [replace(each, targets=empty_targets(len(each.targets))) for each in records]
    view = CrossTokenizerStore(capture(texts, TargetSpec("topk", 0)), teacher, student)
    assert not view.rows.any() and view.shares.masked == view.shares.tokens > 0
    assert [len(window) for window in view.read(range(4))] == view.tokens.tolist()


def test_shares_are_one_line() -> None:
    shares = AlignedShares(10_024, 753, 1_111, 457)
    assert str(shares) == (
        "of 12,345 student tokens 81.2% exact, 6.1% chained, 9.0% inside a teacher token, 3.7% masked"
    )
    assert str(AlignedShares(0, 0, 0, 0)).startswith("of 0 student tokens 0.0% exact")
