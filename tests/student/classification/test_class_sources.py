"""Texts and class targets from a store or a file; examples without a class are left out and counted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cache.errors import InputError, SpecMismatchError, StoreError
from cache.examples.example import Example
from cache.rendering.render import render
from cache.rows.sparse_targets import concatenate, empty_targets
from cache.rows.spec import TargetSpec
from student.classification.batches import CLASS_TARGETS, ClassBatches
from student.classification.labels import class_ids
from student.classification.probabilities import answer_row
from student.classification.source import ClassSource
from student.classification.texts import encode_segments, input_segments, learn_input_tokenizer
from student.losses.settings import LossSettings
from student.losses.weighted_objectives import WeightedObjectives
from student.tokenizers.wordpiece import learn_wordpiece
from tests.student.classification.judge_teacher import (
    AT_LABEL,
    SETTINGS,
    STUDENT,
    TEACHER,
    TOPK,
    open_store,
    row,
    teacher_record,
    token,
)


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
        assert source.teacher.label_mass[i] == pytest.approx(mass.sum(), rel=0.02)
        assert source.tokens[i].tolist() == STUDENT(f"ice {number}", add_special_tokens=False)["input_ids"]
        assert source.labels[i] == number % 2


def test_examples_without_a_class_are_left_out_and_counted(tmp_path: Path) -> None:
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
    with pytest.raises(StoreError, match=r"no example has a class.*2 with labels of less mass.*example e1"):
        ClassSource.from_store(store, AT_LABEL.model_copy(update={"min_covered": 0.9}), TEACHER, STUDENT)
    with pytest.raises(StoreError, match="there are none"):
        ClassSource.from_store(store, AT_LABEL, TEACHER, STUDENT, origins=("scored",))


def test_labels_that_are_no_class_are_reported(tmp_path: Path) -> None:
    record, _, _ = teacher_record("Answer: correct", 0, 0, TOPK)
    example = replace(record.tokenized.example, label="irrelevant")
    store = open_store(tmp_path, [replace(record, tokenized=replace(record.tokenized, example=example))], TOPK)
    source = ClassSource.from_store(store, AT_LABEL, TEACHER, STUDENT)
    assert source.labels.tolist() == [-1] and source.unmatched == {"irrelevant": 1}


def test_stores_without_class_probabilities_are_refused(tmp_path: Path) -> None:
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


def test_the_answer_of_a_trace_is_not_in_the_input() -> None:
    turns = [("system", "judge"), ("user", "ice"), ("assistant", "yes"), ("user", "heat"), ("assistant", "correct")]
    trace = Example("1", tuple({"role": role, "content": content} for role, content in turns))
    assert trace.is_trace
    assert input_segments(trace, SETTINGS) == ("heat",)
    all_turns = SETTINGS.model_copy(update={"input": "all_turns"})
    assert input_segments(trace, all_turns) == ("judge\nice\nyes\nheat",)
    asked = replace(trace, messages=trace.messages[:-1], response="correct")
    assert input_segments(asked, SETTINGS) == ("heat",)
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


def test_fields_of_the_metadata_are_segments_with_a_separator_between_them() -> None:
    settings = SETTINGS.model_copy(update={"fields": ("question", "answer")})
    example = Example("7", (), metadata={"question": "ice", "answer": "", "points": 3})
    assert input_segments(example, settings) == ("ice", "")
    tokenizer = learn_wordpiece(["Ice is cold", "heat flows because ice"], 300)
    (tokens,), cut = encode_segments([("ICE", "Heat")], tokenizer, 9)
    assert tokenizer.convert_ids_to_tokens(tokens) == ["ice", "<|sep|>", "heat"] and cut == 0
    for name in ("grade", "points"):
        wrong = SETTINGS.model_copy(update={"fields": (name,)})
        with pytest.raises(InputError, match=f"example 7: classes.fields has '{name}'.*question, answer, points"):
            input_segments(example, wrong)


def test_of_a_text_that_is_too_long_the_longest_segment_is_cut() -> None:
    """An answer at the end must not be what is lost. Would catch a cut on the right of the whole text."""
    tokenizer = learn_wordpiece(["ice heat cold flows"], 300)
    texts = [("ice " * 9, "heat cold flows"), ("ice", "heat")]
    encoded, cut = encode_segments(texts, tokenizer, 6)
    assert [tokenizer.decode(each) for each in encoded] == ["ice ice <|sep|> heat cold flows", "ice <|sep|> heat"]
    assert cut == 1
    for limit in range(1, 8):
        assert all(len(each) <= limit for each in encode_segments([("ice " * 9, "", "heat " * 9)], tokenizer, limit)[0])


def test_hard_labels_may_be_those_of_the_teacher(tmp_path: Path) -> None:
    made = [teacher_record(f"Answer: {label}", i, i, TOPK) for i, label in enumerate(["correct", "wrong"] * 4)]
    source = ClassSource.from_store(
        open_store(tmp_path, [record for record, _, _ in made], TOPK), AT_LABEL, TEACHER, STUDENT
    )
    objectives = WeightedObjectives.of(LossSettings(objective="hard_label"), CLASS_TARGETS)
    assert source.teacher is not None
    predicted = source.teacher.log_probs.argmax(1)
    assert (predicted != source.labels).any(), "the teacher is always right, so the test shows nothing"
    own, taught = (ClassBatches(source, objectives, None, which).batch(range(8)) for which in ("label", "teacher"))
    assert own.labels.tolist() == source.labels.tolist() and taught.labels.tolist() == predicted.tolist()
    without = replace(source, teacher=None)
    with pytest.raises(InputError, match="hard_labels"):
        ClassBatches(without, objectives, None, "teacher")


def test_a_micro_batch_without_texts_weighs_nothing() -> None:
    """The shortest text stands in for a rank without texts. Would catch one that counts."""
    texts = [("heat " * 9, "correct"), ("ice", "wrong")]
    examples = [Example(str(i), ({"role": "user", "content": t},), label=y) for i, (t, y) in enumerate(texts)]
    source = ClassSource.from_examples(examples, SETTINGS, STUDENT)
    batches = ClassBatches(source, WeightedObjectives.of(LossSettings(objective="hard_label"), CLASS_TARGETS))
    batch = batches.batch([])
    assert batch.weights.tolist() == [[0.0]] and batch.inputs["input_ids"].shape == (1, len(source.tokens[1]))
    assert batches.batch([0, 1]).weights.tolist() == [[1.0, 1.0]] and batches.batch([0, 1]).without_loss == 0
