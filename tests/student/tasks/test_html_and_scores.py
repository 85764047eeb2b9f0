"""Scores of texts have the values worked out by hand; fragments of HTML cannot be broken by a text."""

import numpy as np
import pytest

from student.tasks import html
from student.tasks.figures import bars, confusion_matrix, curves, grouped_bars
from student.tasks.text_scores import exact_match, f1, normalise, rouge, token_f1, words_of


def test_normalised_texts_have_no_case_articles_or_punctuation() -> None:
    assert normalise("The  Oven, an 'Egg' -- and a pan.") == "oven egg and pan"
    assert exact_match("The oven.", "oven") == 1.0
    assert exact_match("Bake at 1.5.", "bake at 15") == 0.0
    assert exact_match("Mix it. The dough rises. A crust forms.", "mix it. the dough rises. a crust forms.") == 1.0
    assert exact_match("Use The bowl", "Use the bowl") == exact_match("An egg", "egg") == 1.0
    assert exact_match("blood group: A positive", "blood group: positive") == 0.0
    assert exact_match("ovens", "oven") == 0.0


@pytest.mark.parametrize(
    "value, normal",
    [
        ("2.5 mg.", "2.5 mg"),
        (".5 mg", "0.5 mg"),
        ("1.50 mg", "1.5 mg"),
        ("2.0 mg", "2 mg"),
        ("E11.0", "e11.0"),
        ("version 1.10.2", "version 1.10.2"),
        ("O+", "o plus"),
        ("HIV-", "hiv minus"),
        ("HIV-positive", "hivpositive"),
        ("-5", "minus 5"),
        ("<5 mg", "below 5 mg"),
        (">= 5mg", "atleast 5 mg"),
        ("50%", "50 percent"),
        ("1,000 mg", "1000 mg"),
        ("120/80", "120/80"),
        ("10-20 mg", "10-20 mg"),
        ("Hepatitis A", "hepatitis a"),
        ("Hepatitis A virus", "hepatitis a virus"),
        ("A tablet twice a day", "tablet twice day"),
        ("St. John's wort", "st johns wort"),
        ("NOT PROVIDED.", "not provided"),
        (" ... ", ""),
        ("500mg", "500 mg"),
        ("3/4-inch", "3/4 inch"),
    ],
)
def test_what_is_equal_has_one_form(value: str, normal: str) -> None:
    assert normalise(value) == normal


def test_a_conversation_has_the_words_of_its_values() -> None:
    words = words_of("Doctor: A 56-year-old takes 2.5 mg/day, or 1,000.\nPatient: Hepatitis A.")
    for value in ("2.5 mg", "56 year old", "1000", "Hepatitis A"):
        assert set(normalise(value).split()) <= words
    assert "25" not in words


@pytest.mark.parametrize(
    "text, reference, value",
    [
        ("bake 40 minutes", "bake for 40 minutes", 2 * 3 / 7),
        ("bake bake", "bake", 2 / 3),  # a word counts as often as both have it
        ("", "", 1.0),
        ("", "bake", 0.0),
        ("fry", "bake", 0.0),
    ],
)
def test_token_f1_by_hand(text: str, reference: str, value: float) -> None:
    assert token_f1(text, reference) == pytest.approx(value)


def test_rouge_takes_the_reference_as_the_reference_and_stems() -> None:
    scores = rouge("the cat sat", "the cats sat on the mat")
    assert scores["rouge1"] == pytest.approx(2 * 3 / 9)
    assert scores["rouge2"] == pytest.approx(2 * 2 / 7)
    assert scores["rougeL"] == pytest.approx(2 * 3 / 9)


def test_f1_by_hand() -> None:
    assert f1(1, 1, 1) == 0.5
    assert f1(0, 0, 0) == 1.0
    assert f1(0, 3, 0) == 0.0


def test_texts_are_escaped_everywhere() -> None:
    bad = "<script>&"
    for fragment in (
        html.paragraphs(bad),
        html.preformatted(bad),
        html.table([bad], [[bad]]),
        html.definitions({bad: bad}, frozenset([bad])),
        html.marked(bad, [(0, 3)]),
    ):
        assert "<script" not in fragment
        assert "&amp;" in fragment
    assert html.marked("a bc d", [(2, 4)]) == "a <mark>bc</mark> d"
    assert "class=wrong" in html.definitions({"x": "1"}, frozenset("x"))


def test_charts_are_drawn_with_their_numbers() -> None:
    assert "<!-- 7 -->" in confusion_matrix(np.array([[7, 0], [0, 0]]), ["yes", "no"])
    for svg in (
        bars({"a": 1.0}, "x"),
        grouped_bars({"kd": {"a": 1.0}, "ce": {"b": 2.0}}, "y"),
        curves({"kd": ([1, 2], [3, 4])}, "x", "y"),
    ):
        assert svg.startswith("<svg")
