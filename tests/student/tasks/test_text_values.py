"""Values are compared without what means nothing, and with what does."""

import pytest

from student.tasks.text_values import normalise_value, words_of


@pytest.mark.parametrize(
    "value, normal",
    [
        ("2.5 mg.", "2.5 mg"),
        (".5 mg", ".5 mg"),
        ("1,000 mg", "1000 mg"),
        ("120/80", "120/80"),
        ("10-20 mg", "10-20 mg"),
        ("Hepatitis A", "hepatitis a"),
        ("Hepatitis A virus", "hepatitis a virus"),
        ("A tablet twice a day", "tablet twice day"),
        ("St. John's wort", "st johns wort"),
        ("NOT PROVIDED.", "not provided"),
        (" ... ", ""),
    ],
)
def test_what_is_equal_has_one_form(value: str, normal: str) -> None:
    assert normalise_value(value) == normal


def test_a_conversation_has_the_words_of_its_values() -> None:
    words = words_of("Doctor: A 56-year-old takes 2.5 mg/day, or 1,000.\nPatient: Hepatitis A.")
    for value in ("2.5 mg", "56 year old", "1000", "Hepatitis A"):
        assert set(normalise_value(value).split()) <= words
    assert "25" not in words
