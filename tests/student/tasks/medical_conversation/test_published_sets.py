"""MTS-Dialog and ACI-bench: the whole published files where they are given, and small files with each mistake."""

from collections import Counter
from pathlib import Path

import pytest

from cache.errors import InputError
from student.tasks.medical_conversation.conversation import parse_turns
from student.tasks.medical_conversation.sections import (
    FILES,
    parse_section,
    read_sections,
    score_section,
    section_metrics,
)
from student.tasks.medical_conversation.visits import read_visits
from tests.real_data import real_data

HEAD = "ID,section_header,section_text,dialogue\n"
ROW = '0,CC,"A cough.","Doctor: Hi.\nPatient: I cough."\n'


def write_sets(folder: Path, train: str | bytes = HEAD + ROW) -> Path:
    for name in FILES.values():
        (folder / name).write_text(HEAD + ROW.replace("I cough", f"I cough, {name[:30]}"))
    (folder / FILES["train"]).write_bytes(train.encode() if isinstance(train, str) else train)
    return folder


def test_every_row_of_mts_dialog_is_read() -> None:
    splits, facts = read_sections(real_data("mts_dialog"))
    assert {name: len(rows) for name, rows in splits.items()} == {
        "train": 1195,
        "validation": 100,
        "heldout": 200,
        "heldout_2": 200,
    }
    assert facts["left_out_of_train"] == {"the dialogue is also in another file": 6}
    assert Counter(example.metadata["header"] for example in splits["heldout"])["GENHX"] == 53
    for example in (example for rows in splits.values() for example in rows):
        assert parse_section(example.response) == (example.metadata["header"], example.metadata["section_text"])
        assert example.label == example.metadata["header"]
        assert "\r" not in example.response + example.metadata["conversation"]


def test_every_visit_of_aci_bench_is_read() -> None:
    splits, facts = read_visits(real_data("aci_bench"), "Extract.", None)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 67, "heldout": 40, "heldout_2": 40}
    assert facts["visits_cut_at_max_words"] == 0 and facts["exchanges"] > 2000
    cut, facts = read_visits(real_data("aci_bench"), "Extract.", 300)
    assert facts["visits_cut_at_max_words"] == 147
    for example in (example for rows in cut.values() for example in rows):
        turns = parse_turns(example.metadata["conversation"])
        assert sum(len(turn.text.split()) for turn in turns[1:]) <= 300 and not example.response


def test_a_training_dialogue_of_another_file_is_left_out_whatever_its_commas(tmp_path: Path) -> None:
    shared = ROW.replace("0,CC", "1,CC").replace("I cough.", f"I cough {FILES['heldout'][:30]}")
    splits, facts = read_sections(write_sets(tmp_path, HEAD + ROW + shared))
    assert [example.id for example in splits["train"]] == ["mts-train-0"]
    assert facts["left_out_of_train"] == {"the dialogue is also in another file": 1}


@pytest.mark.parametrize(
    "train, message",
    [
        (HEAD, "has no rows"),
        (HEAD + ROW.replace("CC", "COUGH"), "line 2: unknown header 'COUGH'; known: FAM/SOCHX"),
        (HEAD + ROW + ROW, "line 4: the ID '0' is also at .*line 2"),
        (HEAD + ROW + '1,CC,"","Doctor: Hi."\n', "line 4: the field 'section_text' is empty"),
        (HEAD + ROW + "1,CC,a,b,c\n", "line 4: 5 fields, and the header has 4; .*put texts that contain ',' in quotes"),
        (HEAD + ROW + '1,CC,"a\n', "line 4: unexpected end of data"),
        (HEAD.replace("dialogue", "dialog") + ROW, "line 1: there is no column 'dialogue'; the line has 'ID'"),
        ((HEAD + ROW).encode() + "1,CC,é,b\n".encode("latin-1"), "line 4: is not UTF-8 text"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, train: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=rf"{FILES['train']}(, line \d+)?: ?.*{message}|{message}"):
        read_sections(write_sets(tmp_path, train))


def test_marks_line_ends_and_separators_of_unicode_are_text(tmp_path: Path) -> None:
    row = '0,CC,a\u2028b,"Doctor: Hi.\r\nPatient: Ü."\r\n'
    splits, _ = read_sections(write_sets(tmp_path, b"\xef\xbb\xbf" + (HEAD.replace("\n", "\r\n") + row).encode()))
    assert splits["train"][0].metadata["conversation"] == "Doctor: Hi.\nPatient: Ü."


def test_headers_and_rouge_are_those_worked_out_by_hand() -> None:
    assert parse_section("cc: A cough.") == ("CC", "A cough.")
    assert parse_section("FAM/SOCHX\nNo.\nNone.") == ("FAM/SOCHX", "No.\nNone.")
    assert parse_section("## **other_history**: No.") == ("OTHER_HISTORY", "No.")
    assert parse_section("**CC**\n*none*") == ("CC", "*none*")
    assert parse_section("The patient coughs.") == (None, "The patient coughs.")
    answers = [("CC\na cough", "CC"), ("ROS\nno fever", "CC"), ("nothing", "ROS")]
    metrics = section_metrics([score_section(text, header, "a cough today") for text, header in answers])
    assert metrics["header_accuracy"] == pytest.approx(1 / 3) and metrics["header_rate"] == pytest.approx(2 / 3)
    assert metrics["header_macro_f1"] == pytest.approx((2 / 3 + 0) / 2)  # CC: 1 of 1 given, 1 of 2 true
    assert metrics["rouge1"] == pytest.approx(0.8 / 3) and metrics["rouge2"] == pytest.approx(2 / 3 / 3)
