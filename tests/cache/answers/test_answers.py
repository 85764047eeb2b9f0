"""Labels are found in the texts of models, and labels with the same meaning agree."""

import json
import re
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.answers.labels import labels_match, normalise_label
from cache.answers.parsing import ParsedAnswer, parse_answer

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
# Pieces that meet each other in labels, so that random texts reach the interesting cases.
PIECES = [
    "1",
    "20",
    "1,000",
    ".5",
    "1/2",
    "½",
    " ",
    "-",
    "−",
    "$",
    "€",
    "%",
    "(",
    ")",
    ".",
    "**",
    '"',
    "’",
    "×",
    " * ",
    "B",
    "ß",
]
LABELS = st.one_of(st.text(), st.lists(st.sampled_from(PIECES)).map("".join))
WRITTEN = st.one_of(
    st.text(),
    st.lists(
        st.sampled_from(["Answer:", "ANSWER:", "Answer", ":", "_", "Q:", "\n", " ", "**", "# ", ".", '"', "5", "so"])
    ).map("".join),
)


@pytest.mark.parametrize(
    "text, rationale, label",
    [
        ("2 and 2 make 4.\nAnswer: 4", "2 and 2 make 4.", "4"),
        ("2 and 2 make 4. Answer: 4.\n", "2 and 2 make 4.", "4"),
        ("Because.\n**Answer:** 4\nI hope this helps!", "Because.", "4"),
        ("Because.\n\n**Answer: 4**", "Because.", "4"),
        ("Because.\n### ANSWER: **$1,000**.\r\n", "Because.", "$1,000"),
        ('A first answer: 3. No.\nanswer: "Paris."', "A first answer: 3. No.", "Paris"),
        ("So it is **Answer**: no, **Answer: :(B)**", "So it is **Answer**: no,", "(B)"),
        ('Both.\nAnswer: "a" and "b"', "Both.", '"a" and "b"'),
        ("Tall.\nAnswer: 5'", "Tall.", "5'"),
        ("So.\n**Answer**: 4", "So.", "4"),
        ("So.\n**ANSWER** : **4**", "So.", "4"),
        ("So.\n_answer_: 4", "So.", "4"),
        ("So.\n### ***Answer***:\n4", "So.", "4"),
        ("So.\n*Answer:* 4", "So.", "4"),
        ("So.\n__Answer:__ *4*", "So.", "4"),
        ("Answer: 3. No.\n**Answer**: 4", "Answer: 3. No.", "4"),
        ("**Answer**: 3. No.\nAnswer: 4", "**Answer**: 3. No.", "4"),
        ("So.\nAnswer: U.S.", "So.", "U.S"),
        ("So.\n**Answer:**\n\n4\n", "So.", "4"),
        ("So.\nAnswer:\n```smiles\nCCO\n```\nDone.", "So.", "CCO"),
        ("So.\nAnswer: `CCO`.", "So.", "CCO"),
        ("So.\nAnswer:\n$$\n18\n$$", "So.", "18"),
        ("So.\nAnswer: \\[\n18\n\\]\nDone.", "So.", "18"),
        ("So.\n**Answer:**\n\\[\n\\boxed{18}\n\\]", "So.", "18"),
        ("So.\nAnswer: **`CCO`**", "So.", "CCO"),
        ("So.\nAnswer: $\\boxed{42}$.", "So.", "42"),
        ("So.\nAnswer: \\(\\text{Paris}\\)", "So.", "Paris"),
        ("So.\nAnswer: \\boxed{\\frac{1}{2}}", "So.", "\\frac{1}{2}"),
        ("So.\nAnswer: <answer>B</answer>", "So.", "B"),
        ("So.\nAnswer: $5", "So.", "$5"),
        ("So.\nAnswer: $5 and $6", "So.", "$5 and $6"),
        ("So.\nAnswer: \\text{a} or \\text{b}", "So.", "\\text{a} or \\text{b}"),
    ],
)
def test_rationale_and_label_are_separated(text: str, rationale: str, label: str) -> None:
    parsed = parse_answer(text, "Answer:")
    assert (parsed.rationale, parsed.label, parsed.status) == (rationale, label, "parsed")


def test_offsets_are_of_the_text() -> None:
    assert parse_answer(' Because.\n**Answer:** "4".', "Answer:") == ParsedAnswer("Because.", "4", "parsed", 10, 23, 24)


def test_the_missing_part_is_named() -> None:
    assert parse_answer("I do not know. ", "Answer:") == ParsedAnswer("I do not know.", "", "no_label", 15, 15, 15)
    assert parse_answer("So\nAnswer: **.\n4", "Answer:").status == "no_label"
    assert parse_answer("So\nAnswer:\n4", "Answer:").label == "4"
    assert parse_answer(" **Answer:** 4", "Answer:").status == "no_rationale"
    assert parse_answer("Answer:", "Answer:").status == "no_label"


def test_a_text_that_runs_on_is_cut_at_the_next_question() -> None:
    text = "10 * 45 is 450. The answer is (10 * 45).\n\n Q: 15 trees?\nA: The answer is (21 - 15)."
    assert parse_answer(text, "The answer is").label == "(21 - 15)"
    parsed = parse_answer(text, "The answer is", "Q:")
    assert (parsed.rationale, parsed.label) == ("10 * 45 is 450.", "(10 * 45)")


def test_a_stop_counts_only_at_the_start_of_a_line_after_some_text() -> None:
    text = "\nQ: what?\nThe FAQ: says so.\nAnswer: 4\nQ: next\nAnswer: 5"
    assert parse_answer(text, "Answer:", "Q:").label == "4"
    assert parse_answer("Q: what?\nThe FAQ: says Answer: 4", "Answer:", "Q:").label == "4"


def test_without_a_marker_all_is_the_label() -> None:
    assert parse_answer("\n The patient is well. ", "") == ParsedAnswer("", "The patient is well.", "parsed", 0, 2, 22)
    assert parse_answer("well\nQ: more", "", "Q:").label == "well"
    assert parse_answer(" ", "").status == "no_label"


@given(WRITTEN, st.sampled_from(["Answer:", "", "so"]), st.sampled_from(["", "Q:"]))
def test_offsets_are_valid_for_any_text(text: str, marker: str, stop: str) -> None:
    parsed = parse_answer(text, marker, stop)
    assert text[parsed.label_start : parsed.label_end] == parsed.label == parsed.label.strip()
    assert text[: parsed.rationale_end].strip() == parsed.rationale
    assert 0 <= parsed.rationale_end <= parsed.label_start <= parsed.label_end <= len(text)
    assert (parsed.label == "") == (parsed.status == "no_label")
    if marker and parsed.status != "no_label":
        between = text[parsed.rationale_end : parsed.label_start].lower()
        assert marker.lower() in between or marker.lower() in re.sub(r"[*_]+[ \t]*", "", between)
        assert (parsed.rationale == "") == (parsed.status == "no_rationale")


@given(st.text(st.characters(categories=["L", "N", "Zs"])), st.text(st.characters(categories=["L", "Nd"]), min_size=1))
def test_what_was_written_is_found_again(rationale: str, label: str) -> None:
    parsed = parse_answer(f"{rationale}\nAnswer: {label}.\n\nQ: another", "answer:", "Q:" if rationale.strip() else "")
    assert (parsed.rationale, parsed.label) == (rationale.strip(), label)


@pytest.mark.parametrize(
    "label, normal",
    [
        ("  The  Eiffel\tTower. ", "the eiffel tower"),
        ("(B)", "b"),
        ("Straße", "strasse"),
        ("ＡＢＣ", "abc"),
        ("don’t", "don't"),
        ("$1,234,567.50", "1234567.50"),
        ("€ 5", "5"),
        ("50 %", "50"),
        ("1,2", "1,2"),
        ("0,500", "0,500"),
        ("1000,200", "1000,200"),
        ("-$5", "-5"),
        (".5", ".5"),
        ("1½", "1 1/2"),
        ("C++", "c++"),
        ("?!", "?!"),
        ("$5 $6", "5 6"),
        ("5$6", "5$6"),
        ("1,000,", "1000"),
        ("", ""),
    ],
)
def test_normalise(label: str, normal: str) -> None:
    assert normalise_label(label) == normal


@given(LABELS)
def test_normalise_is_idempotent(label: str) -> None:
    assert normalise_label(normalise_label(label)) == normalise_label(label)


@pytest.mark.parametrize(
    "label, truth",
    [
        ("0.5", "1/2"),
        ("72", "72.0"),
        ("$72", "72"),
        ("72.", "72"),
        ("1,234", "1234"),
        ("50%", "50"),
        ("−3", "-3"),
        ("1e3", "1000"),
        ("1½", "1.5"),
        ("-1 1/2", "-1.5"),
        ("0.1", "1/10"),
        ("(B)", "b"),
        ("B.", "b"),
        ("**Yes**", "yes"),
        ("(10 * 45)", "( 10.0 * 45.0 )"),
        ("(12 - 2) - 7", "3"),
        ("45 - (-1).", "46"),
        ("20 ÷ 8", "2.5"),
        ("($5 + $6) × 2", "22"),
        ("1e999999999", "1E999999999"),
        ("5 apples", "5"),
        ("5 apples", "5 apple"),
        ("$1,000 dollars", "1000"),
        ("1 1/2 cups", "3/2"),
        ("37 °C", "37"),
        ("x = 5", "5"),
        ("3 + 4 = 7", "7"),
        ("3 + 4 = 7 apples", "7"),
        ("\\frac{1}{2}", "0.5"),
        ("$\\dfrac{3}{4}$", "0.75"),
        ("5\\frac{1}{2}", "5.5"),
        ("$2\\frac{3}{4}$", "11/4"),
        ("\\frac34", "3/4"),
        ("1\\,200", "1200"),
        ("\\(18\\) dollars", "18"),
        ("\\$1{,}000", "1000"),
        ("50\\%", "50"),
        ("5\\,\\text{cm}", "5 cm"),
        ("2 \\times 3", "6"),
        ("\\text{(B)}", "b"),
        ("5cm", "5"),
        ("$0:$", "0:$"),
        ("5 cm", "5"),
        ("5 g of sugar", "5"),
        ("60 km/h", "60"),
        ("60km / h", "60"),
        ("5m", "5"),
        ("12°", "12"),
        ("37°F", "37"),
        ("30min", "30"),
        ("5元", "5"),
        ("5 ans", "5"),
        ("6 apples, in total", "6"),
        ("5 dollars (USD)", "5"),
        ("7 well-kept dogs", "7"),
        ("x = 3 + 3 = 6", "6"),
        ("Area = length × width = 6 × 4 = 24 cm", "24"),
        ("1,000 + 5 = 1,005", "1005"),
        ("x1 = 6 m", "6"),
        ("5 m + 3 m = 8 m", "8"),
        ("2 hours = 120 minutes", "120"),
        ("Paris!", "paris"),
    ],
)
def test_labels_with_the_same_meaning_agree(label: str, truth: str) -> None:
    assert labels_match(label, truth)
    assert labels_match(truth, label)


@pytest.mark.parametrize(
    "label, truth",
    [
        ("5", "-5"),
        (".5", "5"),
        ("1½", "11/2"),
        ("0.30000000000000001", "0.3"),
        ("9007199254740993", "9007199254740992"),
        ("A", "B"),
        ("C++", "C"),
        ("+", "-"),
        ("", "0"),
        ("nan", "inf"),
        ("1/0", "2/0"),
        ("1 / 0", "2 / 0"),
        ("555-1234", "556-1235"),
        ("3/4/2020", "6/8/2020"),
        ("2 ** 3", "8"),
        ("7 // 2", "3"),
        ("2 * x", "2"),
        ("(1 + 2", "3"),
        ("10(5)", "50"),
        ("1e999999999", "1e999999998"),
        ("5 apples", "5 pears"),
        ("5 or 6", "5"),
        ("5 million", "5"),
        ("5k", "5"),
        ("5 May 2020", "5"),
        ("x >= 5", "5"),
        ("5 = x", "5"),
        ("10 to 12", "10"),
        ("3 - 4 apples", "3"),
        ("\\frac{1}{2}", "12"),
        ("5\\frac{1}{2}", "25.5"),
        ("3 + 4 = 8", "8"),
        ("4x", "4"),
        ("4 x", "4"),
        ("4xy", "4"),
        ("2π", "2"),
        ("2 pi", "2"),
        ("5i", "5"),
        ("2e", "2"),
        ("5!", "5"),
        ("(5)!", "5"),
        ("3!!", "3"),
        ("3! ways", "3"),
        ("2 + 3!", "5"),
        ("5 squared", "5"),
        ("5 millions", "5"),
        ("5 dozens", "5"),
        ("5 thirds", "5"),
        ("3 lakh", "3"),
        ("3 Millionen", "3"),
        ("5M", "5"),
        ("$5M", "5"),
        ("5 B", "5"),
        ("2b", "2"),
        ("2nd", "2"),
        ("5万", "5"),
        ("5 m + x", "5"),
        ("5 apples * x", "5"),
        ("5 apples - x", "5"),
        ("1 out of four", "1"),
        ("x=5 or x=6", "6"),
        ("x = 5, y = 6", "6"),
        ("x = 5; y = 6", "6"),
        ("x = 5 and y = 6 apples", "6"),
        ("x = 5 \\text{ or } x = 6", "6"),
        ("x = 5\ny = 6", "6"),
        ("x = 5 y = 6", "6"),
        ("x = y, z = 6", "6"),
        ("2x = 6", "6"),
        ("2 x = 6", "6"),
        ("2 * x = 6", "6"),
        ("5 \\text{ m }", "5 \\text{ s }"),
    ],
)
def test_labels_with_different_meanings_disagree(label: str, truth: str) -> None:
    assert not labels_match(label, truth)
    assert not labels_match(truth, label)


@given(LABELS, LABELS)
def test_agreement_is_reflexive_and_symmetric(label: str, truth: str) -> None:
    assert labels_match(label, label)
    assert labels_match(label, truth) == labels_match(truth, label)
    assert labels_match(label, normalise_label(label))


@given(st.fractions(), st.fractions())
def test_numbers_agree_exactly_when_they_are_equal(a: Fraction, b: Fraction) -> None:
    assert labels_match(str(a), f"({b}).") == (a == b)
    assert labels_match(str(a), f"{a + b} - ({b})") == (b.denominator == 1 == (a + b).denominator)


@given(st.text("0123456789.()+-*/ ", max_size=250))
def test_anything_that_looks_like_arithmetic_is_survived(label: str) -> None:
    assert labels_match(label, label)


def read_shared(name: str) -> str:
    if not (DATA / name).is_file():
        pytest.skip(f"{DATA / name} is absent; this test reads the released data")
    return (DATA / name).read_text(encoding="utf-8")


def test_every_worked_answer_of_gsm8k_has_a_number() -> None:
    answers = [json.loads(line)["answer"] for line in read_shared("gsm8k/test.jsonl").splitlines()]
    assert len(answers) == 1319
    for answer in answers:
        rationale, _, label = answer.rpartition("\n#### ")
        parsed = parse_answer(answer, "####")
        assert (parsed.rationale, parsed.label, parsed.status) == (rationale.strip(), label.strip(), "parsed")
        assert labels_match(parsed.label, f"${int(label.replace(',', '')):,}.00")
        assert not labels_match(parsed.label, str(int(label.replace(",", "")) + 1))
