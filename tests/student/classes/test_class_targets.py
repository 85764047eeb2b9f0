"""Class probabilities are those of the whole distribution, at the right row, of the right ids; texts go with them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydantic import ValidationError
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from cache.errors import InputError, SpecMismatchError, StoreError
from cache.examples.example import Example, Segment, TokenizedExample
from cache.examples.rendering import render, tokenizer_digest
from cache.rows.record import Record
from cache.rows.sparse_targets import SparseTargets, concatenate, empty_targets
from cache.rows.spec import StoreSpec, TargetSpec
from cache.storage.local import LocalStorage
from cache.store.commits import create_store
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from student.classes.class_examples import ClassSource, input_text, learn_input_tokenizer
from student.classes.class_targets import (
    ClassIds,
    ClassSettings,
    answer_row,
    class_ids,
    class_log_probs,
    default_variants,
    label_spellings,
    true_class,
)
from student.tokenizers.bpe import learn_tokenizer
from teacher_serving.asking.answers import judge, parse_answer
from teacher_serving.asking.plan import Wanted
from teacher_serving.asking.rationales import Response, response_record
from teacher_serving.teacher import Generated
from tests.cache.rows.rows import log_softmax, sparse, store_spec

WORDS = ["correct", "wrong", "partly", "Correct", "Wrong", "Partly", "Answer", "heat", "flows", "because", "ice"]
CORPUS = [
    Example("", ({"role": "user", "content": " ".join([word, *WORDS, f"{word}\n{word}"])},)) for word in WORDS * 3
]
TEACHER = learn_tokenizer(CORPUS, 400)
VOCAB = 420
SETTINGS = ClassSettings(labels=["correct", "wrong", "partly"])  # type: ignore[arg-type]  # a list is expanded


def token(text: str) -> int:
    (found,) = TEACHER(text, add_special_tokens=False)["input_ids"]
    return int(found)


def given_ids(*classes: tuple[int, ...]) -> ClassIds:
    pairs = sorted((i, c) for c, ids in enumerate(classes) for i in ids)
    names = tuple("abcdef"[: len(classes)])
    return ClassIds(names, np.array([i for i, _ in pairs]), np.array([c for _, c in pairs]))


def row(entries: dict[int, float], exact: int | None = None) -> SparseTargets:
    """One row of given probabilities, the exact ones first."""
    p = np.array(list(entries.values()))
    exact = len(p) if exact is None else exact
    with np.errstate(divide="ignore"):
        tail = np.log([max(0.0, 1 - p[:exact].sum())] if exact else [1.0])
    return SparseTargets(
        np.array([0, len(p)]),
        np.array(list(entries), np.uint32),
        np.log(p).astype(np.float32),
        tail.astype(np.float32),
        np.array([exact]),
    )


# --- probabilities of a row


@pytest.mark.parametrize("temperature", [1.0, 6.0])
def test_with_the_whole_vocabulary_they_are_those_of_the_logits(temperature: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(50, VOCAB)) * temperature
    classes = ((3, 70, 400), (5,), (71, 6))
    p = np.exp(log_softmax(logits))
    mass = np.stack([p[:, list(ids)].sum(1) for ids in classes], 1)
    found = class_log_probs(sparse(rng, log_softmax(logits), TargetSpec("topk", VOCAB)), given_ids(*classes))
    assert found.known.all()
    expected = np.log(mass / mass.sum(1, keepdims=True))
    assert np.allclose(found.log_probs, expected, atol=1e-5)
    assert np.allclose(found.covered, mass.sum(1), atol=1e-6)
    assert (found.missed <= 1e-6).all()
    assert np.allclose(np.exp(found.log_probs.astype(np.float64)).sum(1), 1)


def test_variants_of_a_label_are_summed() -> None:
    found = class_log_probs(row({9: 0.4, 7: 0.2, 8: 0.1, 50: 0.05}), given_ids((7, 8), (9, 50)))
    assert np.allclose(np.exp(found.log_probs), [[0.3 / 0.75, 0.45 / 0.75]])
    assert found.covered == pytest.approx(0.75)


def test_what_is_not_stored_counts_as_nothing_and_is_bounded() -> None:
    targets = concatenate([row({9: 0.5, 7: 0.3, 40: 0.15}), row({9: 0.5, 40: 0.01}), row({9: 0.5, 40: 0.1, 41: 0.05})])
    found = class_log_probs(targets, given_ids((7, 8), (9, 10)))
    assert np.allclose(np.exp(found.log_probs), [[0.3 / 0.8, 0.5 / 0.8], [0, 1], [0, 1]])
    assert np.isneginf(found.log_probs[1, 0])
    # Absent: 8 and 10, at most all of the tail; then 7, 8 and 10, at most 0.01 and 0.05 each.
    assert np.allclose(found.missed, [0.05, 0.03, 0.15])


@pytest.mark.parametrize("mode", ["topk", "nucleus", "threshold"])
def test_the_bound_holds_for_every_cut(mode: Any) -> None:
    spec = {
        "topk": TargetSpec("topk", 8),
        "nucleus": TargetSpec("nucleus", 30, mass=0.7),
        "threshold": TargetSpec("threshold", threshold=0.02),
    }[mode]
    rng = np.random.default_rng(1)
    log_p = log_softmax(rng.normal(size=(400, 40)) * 2)
    ids = given_ids((1, 2, 3), (4, 5), (6,))
    found = class_log_probs(sparse(rng, log_p, spec), ids)
    whole = np.exp(log_p)[:, ids.ids].sum(1)
    assert (found.covered <= whole + 1e-6).all()
    assert (whole <= found.covered + found.missed + 1e-6).all()
    assert (found.missed[found.covered < whole - 1e-3] > 0).all() and (found.covered < whole - 1e-3).any()


def test_rows_without_any_class_are_not_known() -> None:
    found = class_log_probs(concatenate([row({40: 0.5}), row({7: 0.1}), empty_targets(1)]), given_ids((7,), (9,)))
    assert found.known.tolist() == [False, True, False]
    assert np.isnan(found.log_probs[[0, 2]]).all() and found.covered.tolist()[::2] == [0, 0]
    assert np.isfinite(found.missed).all()
    taken = found.take(found.known)
    assert len(taken) == 1 and taken.log_probs.tolist() == [[0.0, -np.inf]]


def test_sampled_entries_say_nothing_of_a_class() -> None:
    """Id 7 was drawn below the threshold: the row reads as if it had not been."""
    ids = given_ids((7,), (9,), (11,))
    drawn = class_log_probs(row({9: 0.5, 11: 0.25, 7: 0.02}, exact=2), ids)
    not_drawn = class_log_probs(row({9: 0.5, 11: 0.25}, exact=2), ids)
    assert np.array_equal(drawn.log_probs, not_drawn.log_probs)
    assert np.allclose(np.exp(drawn.log_probs), [[0, 2 / 3, 1 / 3]])
    assert drawn.missed == not_drawn.missed == pytest.approx(0.25)
    assert not class_log_probs(row({7: 0.02, 9: 0.02}, exact=0), ids).known.any()


def test_the_ends_of_the_ids_are_found_and_their_neighbours_are_not() -> None:
    targets = row({0: 0.3, 499: 0.2, 498: 0.1, 1: 0.1})
    found = class_log_probs(targets, given_ids((0,), (498,)))
    assert np.allclose(np.exp(found.log_probs), [[0.75, 0.25]])


# --- ids of the labels


def test_names_are_looked_for_with_and_without_space_and_capital() -> None:
    assert set(default_variants("correct")) == {"correct", " correct", "Correct", " Correct"}
    assert default_variants("5") == ("5", " 5")
    found = class_ids(SETTINGS, TEACHER)
    assert found.names == ("correct", "wrong", "partly")
    by_class = {c: set(found.ids[found.class_of == c].tolist()) for c in range(3)}
    assert by_class[0] == {token(text) for text in default_variants("correct")}
    assert by_class[1] == {token(text) for text in default_variants("wrong")}
    assert (np.diff(found.ids) > 0).all()


def test_variants_are_taken_as_they_are_written() -> None:
    given = ClassSettings(labels={"good": (" correct",), "bad": (" wrong", " partly")})
    found = class_ids(given, TEACHER)
    expected = {token(" correct"): 0, token(" wrong"): 1, token(" partly"): 1}
    assert dict(zip(found.ids.tolist(), found.class_of.tolist(), strict=True)) == expected


def test_classes_that_begin_alike_are_refused() -> None:
    """Their shared first token cannot be split between them. Of one class, variants may begin alike."""
    alike = {"a": (" correct because",), "b": (" wrong", " correct ice")}
    with pytest.raises(InputError, match=r"'a' and 'b'.*token \d+ \(' correct'\).*such as the letters"):
        class_ids(ClassSettings(labels=alike), TEACHER)  # type: ignore[arg-type]
    same = {"a": (" correct because", " correct ice"), "b": (" wrong",)}
    assert class_ids(ClassSettings(labels=same), TEACHER).class_of.tolist().count(0) == 1  # type: ignore[arg-type]


@pytest.mark.parametrize("variant", ["", "  "])
def test_empty_variants_are_refused(variant: str) -> None:
    with pytest.raises(InputError, match=r"class 'a': the variant '.*' is empty"):
        class_ids(ClassSettings(labels={"a": (variant,), "b": (" wrong",)}), TEACHER)


@pytest.mark.parametrize("labels", [["one"], {"one": (" one",)}, {"one": (), "two": (" two",)}, ["one", "two", "one"]])
def test_too_few_classes_or_variants_are_refused(labels: Any) -> None:
    with pytest.raises(ValidationError):
        ClassSettings(labels=labels)


def llama_like() -> PreTrainedTokenizerFast:
    """As Llama 2: a space is put before the text, spaces are letters, and other bytes have tokens of their own."""
    pieces = ["<unk>", *(f"<0x{i:02X}>" for i in range(256)), "▁", *"yesno", "ye", "yes", "no", "▁yes", "▁no"]
    merges = [("y", "e"), ("ye", "s"), ("n", "o"), ("▁", "yes"), ("▁", "no")]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    inner = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")


def test_a_space_that_the_tokenizer_adds_is_no_part_of_a_label() -> None:
    tokenizer = llama_like()
    alone = [tokenizer(text, add_special_tokens=False)["input_ids"][0] for text in (" yes", " no")]
    assert alone[0] == alone[1], "encoded alone, the classes would share a lone space"
    found = class_ids(ClassSettings(labels={"yes": ("yes", " yes"), "no": ("no", " no")}), tokenizer)
    pieces = tokenizer.convert_ids_to_tokens(found.ids.tolist())
    assert dict(zip(pieces, found.class_of.tolist(), strict=True)) == {"yes": 0, "▁yes": 0, "no": 1, "▁no": 1}


def test_a_label_that_the_tokenizer_does_not_know_is_refused() -> None:
    vocabulary = {"<unk>": 0, "yes": 1}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>")), unk_token="<unk>"
    )
    with pytest.raises(InputError, match="no token of its own that begins 'no'"):
        class_ids(ClassSettings(labels={"a": ("no",), "b": ("yes",)}), tokenizer)


# --- true labels


def test_true_labels_are_matched_by_name_and_variant() -> None:
    settings = ClassSettings(labels={"correct": (" A",), "wrong": (" B", " false")})
    spellings = label_spellings(settings)

    def index(label: str) -> int:
        return true_class(Example("1", (), label=label), spellings)

    found = [index(label) for label in ("correct", " Correct\n", "a", "WRONG", "False", "", "  ", "corect")]
    assert found == [0, 0, 0, 1, 1, -1, -1, -1]


def test_one_spelling_of_two_classes_is_refused() -> None:
    with pytest.raises(InputError, match="'a' and 'b' are both written 'Yes'"):
        label_spellings(ClassSettings(labels={"a": (" yes",), "b": ("Yes",)}))


# --- the row of the answer

P, R, L, S = Segment.PROMPT, Segment.RATIONALE, Segment.LABEL, Segment.RESPONSE


@pytest.mark.parametrize(
    ("segments", "at", "expected"),
    [
        ([P, P, R, R, S, S, L, L, S], "label", 5),
        ([P, P, L], "label", 1),
        ([P, P, S, S], "response", 1),
        ([P, P, R, R, S, S], "response", 3),  # a rationale that was given comes before the answer
        ([P, S, S, P, P, S, P], "response", 4),  # of a chat, the last answer
    ],
)
def test_the_row_is_that_before_the_first_token(segments: list[int], at: Any, expected: int) -> None:
    assert answer_row(np.array(segments, np.uint8), at, "x") == expected


@pytest.mark.parametrize(
    ("segments", "at"),
    [
        ([P, P, S, S], "label"),
        ([P, L, P, S], "label"),
        ([P, P], "response"),
        ([], "response"),
        ([S, S], "response"),
        ([L], "label"),
    ],
)
def test_an_answer_without_a_row_names_its_example(segments: list[int], at: Any) -> None:
    with pytest.raises(InputError, match="example number 7: no token of segment"):
        answer_row(np.array(segments, np.uint8), at, "number 7")


def teacher_record(
    text: str, number: int, seed: int, targets: TargetSpec
) -> tuple[Record, npt.NDArray[np.float64], npt.NDArray[np.uint32]]:
    """What the capture makes of a response with an answer marker, its whole distributions, and its tokens."""
    rng = np.random.default_rng(seed)
    question = f"ice {number}"
    prompt = np.asarray(TEACHER(question)["input_ids"], np.uint32)
    written = np.append(np.asarray(TEACHER(text)["input_ids"], np.uint32), np.uint32(TEACHER.eos_token_id))
    log_p = log_softmax(rng.normal(size=(len(written), VOCAB)))
    example = Example(f"e{number}", ({"role": "user", "content": question},), label=("correct", "Wrong ")[number % 2])
    tokenized = TokenizedExample(example, prompt, np.zeros(len(prompt), np.uint8), "generated/0")
    rows = sparse(rng, log_p, targets)
    said = Generated(written, rows, np.full(len(written), -1.0, np.float32), True)
    parsed = parse_answer(text, "Answer:")
    response = Response(Wanted(tokenized), said, text, parsed, judge(parsed, example.label))
    return response_record(response, TEACHER, "Answer:", False), log_p, written


@pytest.mark.parametrize("text", ["heat flows\nAnswer: correct.", "ice\nAnswer: Wrong", "Answer: partly"])
def test_the_label_segment_of_a_capture_gives_the_law_of_its_first_token(text: str) -> None:
    """One row earlier or later, the probabilities would be others."""
    record, log_p, written = teacher_record(text, 1, 5, TargetSpec("topk", VOCAB))
    ids = class_ids(SETTINGS, TEACHER)
    (place,) = np.flatnonzero(np.isin(written, ids.ids))  # where the label stands among the written tokens
    masses = np.stack([np.exp(log_p[:, ids.ids[ids.class_of == c]]).sum(1) for c in range(3)], 1)
    expected = masses / masses.sum(1, keepdims=True)
    at = answer_row(record.tokenized.segments, "label", "e")
    found = np.exp(class_log_probs(record.targets.rows(at, at + 1), ids).log_probs)
    assert np.allclose(found, expected[place], atol=1e-5)
    for other in (place - 1, place + 1):
        assert not np.allclose(found, expected[other], atol=1e-2)


# --- a store, and a file


def open_store(folder: Path, records: list[Record], targets: TargetSpec, tokenizer: Any = TEACHER) -> LogitStore:
    storage = LocalStorage(folder / "store")
    spec: StoreSpec = replace(store_spec(targets, VOCAB), tokenizer=tokenizer_digest(tokenizer))
    create_store(storage, spec)
    write_unit(storage, spec, records)
    take_snapshot(storage)
    return LogitStore.open(str(storage))


STUDENT = learn_tokenizer(CORPUS[:3], 300)
TOPK = TargetSpec("topk", VOCAB, step=0.01, tail_step=0.02)
AT_LABEL = ClassSettings(labels=["correct", "wrong", "partly"], at="label")  # type: ignore[arg-type]


def test_a_store_gives_texts_with_their_own_classes(tmp_path: Path) -> None:
    made = [teacher_record(f"heat\nAnswer: {label}", i, i, TOPK) for i, label in enumerate(["correct", "wrong"] * 4)]
    store = open_store(tmp_path, [record for record, _, _ in made], TOPK)
    steps: list[tuple[int, int]] = []
    source = ClassSource.from_store(
        store, AT_LABEL, TEACHER, STUDENT, progress=lambda done, total: steps.append((done, total))
    )
    assert len(source) == 8 and source.left_out == {} and steps[-1] == (8, 8)
    assert source.names == ("correct", "wrong", "partly") and source.teacher is not None
    ids = class_ids(SETTINGS, TEACHER)
    for i, example in enumerate(source.examples):
        number = int(example.id[1:])
        _, log_p, written = made[number]
        (place,) = np.flatnonzero(np.isin(written, ids.ids))
        mass = np.array([np.exp(log_p[place, ids.ids[ids.class_of == c]]).sum() for c in range(3)])
        assert np.allclose(np.exp(source.teacher.log_probs[i]), mass / mass.sum(), atol=0.01)
        assert source.teacher.covered[i] == pytest.approx(mass.sum(), rel=0.02)
        assert source.tokens[i].tolist() == STUDENT(f"ice {number}", add_special_tokens=False)["input_ids"]
        assert source.labels[i] == number % 2


def test_what_a_store_cannot_tell_is_left_out_and_counted(tmp_path: Path) -> None:
    kept, _, _ = teacher_record("Answer: correct", 0, 0, TOPK)
    no_label, _, _ = teacher_record("heat flows", 1, 1, TOPK)
    silent, _, _ = teacher_record("Answer: wrong", 2, 2, TOPK)
    at = answer_row(silent.tokenized.segments, "label", "")
    elsewhere = row({0: 0.5, 1: 0.2})
    rows = [
        silent.targets.rows(0, at),
        replace(elsewhere, exact=None),
        silent.targets.rows(at + 1, len(silent.targets)),
    ]
    silent = replace(silent, targets=concatenate(rows))
    wordless, _, _ = teacher_record("Answer: wrong", 3, 3, TOPK)
    example = replace(wordless.tokenized.example, messages=({"role": "user", "content": ""},))
    wordless = replace(wordless, tokenized=replace(wordless.tokenized, example=example))
    store = open_store(tmp_path, [kept, no_label, silent, wordless], TOPK)
    source = ClassSource.from_store(store, AT_LABEL, TEACHER, STUDENT)
    assert [example.id for example in source.examples] == ["e0"] and len(source.tokens) == 1
    assert source.left_out == {"no token of the label": 1, "no label among the stored ids": 1, "no text": 1}
    assert source.teacher is not None and len(source.teacher) == 1
    with pytest.raises(StoreError, match=r"no example tells a class.*2 with labels of less mass.*example e1"):
        ClassSource.from_store(store, AT_LABEL.model_copy(update={"min_covered": 0.9}), TEACHER, STUDENT)
    with pytest.raises(StoreError, match="there are none"):
        ClassSource.from_store(store, AT_LABEL, TEACHER, STUDENT, origins=("scored",))


def test_labels_that_are_no_class_are_told(tmp_path: Path) -> None:
    record, _, _ = teacher_record("Answer: correct", 0, 0, TOPK)
    example = replace(record.tokenized.example, label="irrelevant")
    store = open_store(tmp_path, [replace(record, tokenized=replace(record.tokenized, example=example))], TOPK)
    source = ClassSource.from_store(store, AT_LABEL, TEACHER, STUDENT)
    assert source.labels.tolist() == [-1] and source.unmatched == {"irrelevant": 1}


def test_stores_that_cannot_tell_a_class_are_refused(tmp_path: Path) -> None:
    sampled = TargetSpec("sampled", draws=20)
    record, _, _ = teacher_record("Answer: correct", 0, 0, sampled)
    with pytest.raises(StoreError, match=r"sampled targets.*ratio.*capture topk or nucleus"):
        ClassSource.from_store(open_store(tmp_path / "a", [record], sampled), AT_LABEL, TEACHER, STUDENT)
    nothing = TargetSpec("topk", 0)
    record = replace(record, targets=empty_targets(len(record.targets)))
    with pytest.raises(StoreError, match="texts without targets"):
        ClassSource.from_store(open_store(tmp_path / "b", [record], nothing), AT_LABEL, TEACHER, STUDENT)
    record, _, _ = teacher_record("Answer: correct", 0, 0, TOPK)
    with pytest.raises(SpecMismatchError, match="another tokenizer"):
        ClassSource.from_store(open_store(tmp_path / "c", [record], TOPK, STUDENT), AT_LABEL, TEACHER, STUDENT)


def test_a_trace_does_not_tell_the_student_its_answer() -> None:
    turns = [("system", "judge"), ("user", "ice"), ("assistant", "yes"), ("user", "heat"), ("assistant", "correct")]
    trace = Example("1", tuple({"role": role, "content": content} for role, content in turns))
    assert trace.is_trace
    assert input_text(trace, "last_turn") == "heat"
    assert input_text(trace, "all_turns") == "judge\nice\nyes\nheat"
    asked = replace(trace, messages=trace.messages[:-1], response="correct")
    assert input_text(asked, "last_turn") == "heat"
    tokenized = render(trace, TEACHER)
    first = answer_row(tokenized.segments, "response", "1") + 1
    assert tokenized.tokens[first] == token("correct")


def test_a_file_of_labels_needs_no_teacher() -> None:
    texts = [("heat", "Correct"), ("ice " * 30, "wrong"), ("ice", ""), ("", "wrong"), ("heat", "other")]
    examples = [Example(str(i), ({"role": "user", "content": t},), label=y) for i, (t, y) in enumerate(texts)]
    settings = SETTINGS.model_copy(update={"max_tokens": 5})
    source = ClassSource.from_examples(examples, settings, STUDENT)
    assert source.teacher is None and source.labels.tolist() == [0, 1]
    assert [len(each) for each in source.tokens] == [len(STUDENT("heat")["input_ids"]), 5] and source.truncated == 1
    assert source.left_out == {"no label": 1, "no text": 1, "a label that is no class": 1}
    before = STUDENT.backend_tokenizer.to_str()
    ClassSource.from_examples(examples, settings, STUDENT)
    assert STUDENT.backend_tokenizer.to_str() == before and STUDENT.backend_tokenizer.truncation is None
    with pytest.raises(InputError, match="1 with no label"):
        ClassSource.from_examples(examples[2:3], settings, STUDENT)


def test_a_compact_tokenizer_is_learned_from_what_is_read_alone() -> None:
    examples = [
        Example(str(i), ({"role": "system", "content": "zyzzyva " * 9}, {"role": "user", "content": "lukewarm"}),
                response="quokka " * 9, label="xylem " * 9)
        for i in range(20)
    ]  # fmt: skip
    tokenizer = learn_input_tokenizer(examples, SETTINGS, 300)
    assert len(tokenizer) <= 300
    assert len(tokenizer("lukewarm")["input_ids"]) == 1
    assert all(len(tokenizer(word)["input_ids"]) == len(word) for word in ("zyzzyva", "quokka", "xylem"))
    both = SETTINGS.model_copy(update={"input": "all_turns"})
    assert len(learn_input_tokenizer(examples, both, 300)("zyzzyva")["input_ids"]) == 1
