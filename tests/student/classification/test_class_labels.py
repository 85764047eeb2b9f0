"""Token ids of the labels, true labels of examples, and the row that precedes the answer."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from cache.errors import InputError
from cache.examples.example import Example, Segment
from cache.rows.spec import TargetSpec
from student.classification.labels import class_ids, label_spellings, true_class
from student.classification.probabilities import answer_row, class_log_probs
from student.classification.settings import ClassSettings, default_variants
from tests.student.classification.judge_teacher import SETTINGS, TEACHER, VOCAB, teacher_record, token


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


@pytest.mark.parametrize("text", ["heat flows\nAnswer: correct.", "ice\nAnswer: Wrong", "Answer: partly"])
def test_the_label_segment_gives_the_distribution_of_its_first_token(text: str) -> None:
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
