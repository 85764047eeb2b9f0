"""Each public form is read whole, and what is wrong in it ends with its file and line."""

from collections import Counter
from pathlib import Path

import pytest

from cache.errors import InputError
from student.tasks.science_scoring.prompts import make_example
from student.tasks.science_scoring.readers import READERS, GradedAnswer
from tests.real_data import real_data
from tests.student.tasks.science_scoring.answer_files import ASAP, ASAP_PROMPTS, BEETLE, MOHLER, XML, text


def read(form: str, path: Path, content: str | bytes) -> list[GradedAnswer]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return READERS[form](path)


def test_beetle(tmp_path: Path) -> None:
    """A quotation mark is a character, an empty answer is an answer."""
    answers = read("beetle_tsv", tmp_path / "b.tsv", text(BEETLE))
    assert [(a.id, a.question_id, a.answer, a.grade) for a in answers] == [
        ("a1", "Q1", "it's a \"gap", "correct"),
        ("a2", "Q1", "no idée", "non_domain"),
        ("a3", "Q2", "", "irrelevant"),
    ]
    assert answers[0].question == "Why is the bulb off?" and answers[0].reference == "There is a gap"
    assert answers[2].place == f"{tmp_path / 'b.tsv'}, line 4"
    windows = read("beetle_tsv", tmp_path / "b.tsv", b"\xef\xbb\xbf" + text(BEETLE, "\r\n").encode() + b"\r\n")
    assert windows == answers
    ungraded = read("beetle_tsv", tmp_path / "b.tsv", text([line.rpartition("\t")[0] for line in BEETLE]))
    assert [answer.grade for answer in ungraded] == ["", "", ""]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "b.tsv: empty; its first line must name the columns id, question_id"),
        ([BEETLE[0].replace("student_answer", "answer")], "b.tsv, line 1: there is no column 'student_answer'"),
        ([BEETLE[0].replace("\t", ";")], "the line has 'id;question_id;question;.* separated by tabs"),
        ([BEETLE[0], BEETLE[1].replace("Why is the bulb off?", "")], "b.tsv, line 2: the field 'question' is empty"),
        ([BEETLE[0] + "\tid"], "b.tsv, line 1: there are two columns 'id'"),
        ([*BEETLE[:2], "a2\tQ1\ttoo few"], "b.tsv, line 3: 3 fields, and the header has 6"),
        ([BEETLE[0], "", BEETLE[1].replace("Q1", "", 1)], "b.tsv, line 3: the field 'question_id' is empty"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read("beetle_tsv", tmp_path / "b.tsv", text(lines) if lines else "")


def test_files_that_are_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"b.tsv, line 3: is not UTF-8 text"):
        read("beetle_tsv", tmp_path / "b.tsv", text(BEETLE).encode("latin-1"))
    with pytest.raises(InputError, match=r"absent.tsv: no such file"):
        READERS["beetle_tsv"](tmp_path / "absent.tsv")


def test_only_line_ends_become_line_ends(tmp_path: Path) -> None:
    """Would catch a turn of a dialogue that is torn in two by a character that Python takes for a line end."""
    odd = "one\x85two\u2028three\x0bfour"
    answers = read("beetle_tsv", tmp_path / "b.tsv", text([BEETLE[0], BEETLE[1].replace("it's a \"gap", odd)]))
    assert answers[0].answer == odd


def test_semeval_xml(tmp_path: Path) -> None:
    """The first BEST reference is used, entities are text, and an answer without a grade is one that nobody graded."""
    answers = read("semeval_xml", tmp_path / "q.xml", XML)
    assert [(a.id, a.answer, a.grade) for a in answers] == [
        ("a1", "x < y", "partially_correct_incomplete"),
        ("a2", "a gap", "correct"),
        ("a3", "", ""),
    ]
    assert {(a.question_id, a.question, a.reference) for a in answers} == {
        ("Q1", "Why is the bulb off?", "There is a gap")
    }
    assert answers[1].place == f"{tmp_path / 'q.xml'}, line 12"
    (tmp_path / "Core").mkdir()
    (tmp_path / "Core" / "p.xml").write_text(XML.replace('"a1"', '"b1"').replace('id="Q1"', 'id="Q0"'))
    assert [a.id for a in READERS["semeval_xml"](tmp_path)] == ["b1", "a2", "a3", "a1", "a2", "a3"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (' id="a2"', "", r"q.xml, line 12: <studentAnswer> has no attribute 'id'"),
        ("</studentAnswers>", "</studentAnswer>", r"q.xml, line 14: is not valid XML: mismatched tag"),
        ("<question qtype", "<questions qtype", r"q.xml, line 3: <questionText> outside of <question>"),
        (' id="Q1"', "", r"q.xml, line 2: <question> has no attribute 'id'"),
        ("studentAnswer ", "answer ", r"is not valid XML"),
    ],
)
def test_bad_xml_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read("semeval_xml", tmp_path / "q.xml", XML.replace(old, new))


def test_xml_reads_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    outside = f'<!DOCTYPE question [<!ENTITY e SYSTEM "{tmp_path / "secret"}">]>\n<question'
    content = XML.replace("<question", outside, 1).replace("a gap</studentAnswer>", "&e;</studentAnswer>")
    assert all("secret" not in answer.answer for answer in read("semeval_xml", tmp_path / "q.xml", content))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"there is no .xml file below it"):
        READERS["semeval_xml"](tmp_path / "empty")


def test_mohler(tmp_path: Path) -> None:
    """Averages become whole points, halves up: 3.5 is 4, 0.5 is 1, 2.25 is 2. An answer may have several lines."""
    answers = read("mohler", tmp_path / "m.csv", text(MOHLER))
    assert [a.grade for a in answers] == ["4", "5", "1", "2"]
    assert [a.id for a in answers] == ["1.1/0", "1.1/1", "1.2/0", "1.2/1"]
    assert answers[0].answer == 'High risk, "quoted",\nin two lines'
    assert answers[1].place.endswith("line 4"), "the line where a row begins"
    for grade in ("five", "-1", "nan", "5.5", "9"):
        with pytest.raises(InputError, match=r"m.csv, line 5: score_avg: .*from 0 to 5; give the average"):
            read("mohler", tmp_path / "m.csv", text([*MOHLER[:3], MOHLER[3].replace(",0.5,", f",{grade},")]))


def test_asap_sas(tmp_path: Path) -> None:
    answers = read("asap_sas", tmp_path / "train.tsv", text(ASAP))
    assert [(a.question_id, a.question, a.grade) for a in answers] == [("1", "", "1"), ("1", "", "3"), ("2", "", "0")]
    assert answers[0].answer == 'You need "to know how much vinegar'
    (tmp_path / "prompts.tsv").write_text(text(ASAP_PROMPTS))
    with_prompts = READERS["asap_sas"](tmp_path / "train.tsv")
    assert [(a.question, a.reference) for a in with_prompts][::2] == [
        ("What else do you need?", "The mass"),
        ("Which plastic stretches?", ""),
    ]
    with pytest.raises(InputError, match=r"train.tsv, line 5: Score1 '4' is not a number of points from 0 to 3"):
        read("asap_sas", tmp_path / "train.tsv", text([*ASAP, "4\t1\t4\t0\tx"]))
    (tmp_path / "sets").mkdir()
    with pytest.raises(InputError, match="Score1 '3' is not a number of points from 0 to 2, the scale of EssaySet 3"):
        read("asap_sas", tmp_path / "sets" / "train.tsv", text([*ASAP, "4\t3\t3\t3\tx"]))
    with pytest.raises(InputError, match=r"train.tsv, line 5: EssaySet '3' has no line in .*prompts.tsv"):
        read("asap_sas", tmp_path / "train.tsv", text([*ASAP, "4\t3\t0\t0\tx"]))
    (tmp_path / "prompts.tsv").write_text(text([*ASAP_PROMPTS, ASAP_PROMPTS[1]]))
    with pytest.raises(InputError, match=r"prompts.tsv, line 4: EssaySet '1' has a line already"):
        READERS["asap_sas"](tmp_path / "train.tsv")


def test_beetle_itself() -> None:
    folder = real_data("beetle")
    train, test = (READERS["beetle_tsv"](folder / f"{name}.tsv") for name in ("train", "test_unseen_answers"))
    assert len(train) == 3941 and len(test) == 439 and len({a.question_id for a in [*train, *test]}) == 47
    assert Counter(a.grade for a in train) == {
        "correct": 1665,
        "contradictory": 1049,
        "partially_correct_incomplete": 919,
        "non_domain": 195,
        "irrelevant": 113,
    }


def test_points_come_with_the_best_grade_of_their_question(tmp_path: Path) -> None:
    """Would catch essay sets of 0 to 2 points that are scored as if they had 3."""
    lines = [*ASAP[:2], "2\t3\t2\t2\tpandas", "3\t6\t2\t2\tmitosis"]
    asap = read("asap_sas", tmp_path / "a.tsv", text(lines))
    assert [answer.max_points for answer in asap] == [3, 2, 3]
    assert {answer.max_points for answer in read("mohler", tmp_path / "m.csv", text(MOHLER))} == {5}
    assert {answer.max_points for answer in read("beetle_tsv", tmp_path / "b.tsv", text(BEETLE))} == {None}
    assert make_example(asap[1], "points", "2", "graded").metadata["max_points"] == 2
