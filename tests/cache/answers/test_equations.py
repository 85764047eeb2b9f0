"""Arithmetic is evaluated exactly, and everything else is refused."""

import random
import re
from fractions import Fraction

import pytest

from cache.answers.equations import MAX_LENGTH, evaluate_equation


@pytest.mark.parametrize(
    "text, value",
    [
        ("( 8.0 - 3.0 )", 5),
        ("( ( 12.0 - 2.0 ) - 7.0 )", 3),
        ("2 + 3 * 4", 14),
        ("(2 + 3) * 4", 20),
        ("10 - 4 - 3", 3),
        ("64 / 4 / 2", 8),
        ("-3 - -2", -1),
        ("2 * -(3 + 1)", -8),
        ("--5", 5),
        ("1 / 3 + 1 / 3 + 1 / 3", 1),
        (".5 + 1.", Fraction(3, 2)),
        (" 7 ", 7),
        ("0.1 + 0.2", Fraction(3, 10)),
    ],
)
def test_values_are_exact(text: str, value: Fraction) -> None:
    """Would catch floats, a wrong order of operations, and operators that group to the right."""
    assert evaluate_equation(text) == value


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "a number is missing"),
        ("(some - 8)", "'s' is no part"),
        ("7x = 14", "'x' is no part"),
        ("2 ** 3", "no number before it"),
        ("7 // 2", "no number before it"),
        ("3 4", "'4' follows a number"),
        ("3 (4)", "'\\(' follows a number"),
        ("(3 + 4", "not closed"),
        ("3 + 4)", "not opened"),
        ("()", "number is missing"),
        ("(3 +)", "number is missing"),
        ("1 / (2 - 2)", "divides by zero"),
        ("11,210 / 84", "',' is no part"),
        ("__import__('os').system('true')", "'_' is no part"),
        ("9" * 100, "follows a number"),
        ("(" * MAX_LENGTH + "1", "longer than"),
        ("٣ + 1", "is no part"),
        ("1e9", "'e' is no part"),
    ],
)
def test_anything_else_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        evaluate_equation(text)


def test_random_expressions_have_the_value_that_python_gives() -> None:
    """Would catch a rule of the grammar that no example above uses."""
    rng = random.Random(0)

    def expression(depth: int) -> str:
        if depth == 0 or rng.random() < 0.2:
            return f"Fraction({rng.randint(0, 99)})"
        inner = f"{expression(depth - 1)} {rng.choice('+-*/')} {expression(depth - 1)}"
        return f"({inner})" if rng.random() < 0.5 else f"{rng.choice(['', '-'])}({inner}) + {expression(0)}"

    compared = 0
    for _ in range(500):
        python = expression(3)
        text = re.sub(r"Fraction\((\d+)\)", r"\1", python)
        try:
            expected = eval(python)
        except ZeroDivisionError:
            with pytest.raises(ValueError, match="divides by zero"):
                evaluate_equation(text)
            continue
        assert evaluate_equation(text) == expected, text
        compared += 1
    assert compared > 300
