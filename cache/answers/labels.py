"""Normalise labels and compare them: as exact numbers if both are numbers, else as text."""

import re
import unicodedata
from fractions import Fraction

from cache.answers.equations import evaluate_equation
from cache.answers.latex import without_latex
from cache.answers.units import CAPITAL_MAGNITUDE, is_unit

PUNCTUATION = ".,;:!?¿¡'\"`«»()[]{}*_。、「」"
# Characters that Unicode NFKC leaves different, mapped to one spelling.
SPELLINGS = str.maketrans("‐−–×÷⁄‘’“”", "---*//''\"\"")
FACTORIAL = re.compile(r"(?<=\d)\)*!+")
OPENING = re.compile(rf"(?:(?!\.\d)[\s{re.escape(PUNCTUATION)}])+")
# Matches only at the start of a run of signs, without backtracking: a long run would otherwise take quadratic time.
SIGN_BEFORE = re.compile(r"(?<![\d$£¥\u20a0-\u20cf])[$£¥\u20a0-\u20cf]++\s*(?=[+-]?\.?\d)")
SIGN_AFTER = re.compile(r"(?<=\d)\s*[%$£¥\u20a0-\u20cf]+(?!\s*\d)")
THOUSANDS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d,])")
# NFKC turns "1½" into "11/2" unless a space is inserted first.
MIXED = re.compile(r"(?<=\d)(?=[¼-¾⅐-⅞])")
# Lengths are limited: the value of a number with a nine-digit exponent would not fit in memory.
NUMBER = re.compile(r"[+-]?(?:\d{1,99}/\d{1,99}|(?:\d{1,99}(?:\.\d{0,99})?|\.\d{1,99})(?:e[+-]?\d{1,3})?)")
NUMBER_START = re.compile(
    r"[+-]?(?:\d{1,99} \d{1,99}/\d{1,99}|\d{1,99}/\d{1,99}|\d{1,99}(?:\.\d{1,99})?|\.\d{1,99})(?![\d.,/])"
)
MAX_EQUATION = 400
MIXED_NUMBER = re.compile(r"([+-]?)(\d{1,99}) (\d{1,99}/\d{1,99})")
ARITHMETIC = re.compile(r"[0-9 .()+*/-]{1,200}")
# Operators without spaces occur in dates and telephone numbers: 3/4/2020 must not equal 6/8/2020.
UNSPACED = re.compile(r"[0-9.)][-+/]")
EQUALS = re.compile(r"(?<![<>!=≠≤≥])=(?!=)")
# Before an equals sign: several statements, such as "x = 5, y = 6", or a multiple of what is looked for, such as "2x".
SEVERAL = re.compile(
    r"[;|∨\n]|,(?!\d{3})|\\\\|\b(?:or|and)\b|\d(?:\s*\*\s*)?[^\W\d_]\b|\d\s+(?![gmlsh]\b)[^\W\d_]\b", re.IGNORECASE
)


def normalise_label(label: str) -> str:
    """Return the form in which labels are compared as text. Idempotent.

    Unicode NFKC, case-folded, spaces collapsed, no punctuation at the ends (unless there is nothing else), no thousands
    separators in numbers, no currency or percent signs next to numbers. Signs as in "-5", "5!" and "C++" stay.
    """
    while True:
        folded = _fold(label)
        opening = OPENING.match(folded)
        body = folded[opening.end() if opening else 0 :]
        stripped = body.rstrip(PUNCTUATION + " ")
        factorial = FACTORIAL.match(body, len(stripped))
        text = (stripped + factorial[0] if factorial else stripped) or folded
        if text == label:
            return text
        label = text


def labels_match(label: str, truth: str) -> bool:
    """Return whether two labels are equal: exactly as numbers if both are numbers, else after normalisation.

    Numbers are finite decimals, fractions and mixed numbers, also in LaTeX. Because labels of the SVAMP data set are
    equations, sums, differences, products and quotients with spaces around the operators count as numbers too:
    "( 10.0 - 4.0 )" matches "6". Of an equation the right side counts: "x = 6" matches "6", but "x = 5 or x = 6" does
    not. A unit may be on one side only: "6 apples" and "6cm" match "6", but not "6 pears".
    """
    if normalise_label(label) == normalise_label(truth):
        return True
    if normalise_label(without_latex(label)) == normalise_label(without_latex(truth)):
        return True
    quantity, true_quantity = _parse_quantity(label), _parse_quantity(truth)
    if quantity is None or true_quantity is None:
        return False
    return quantity[0] == true_quantity[0] and _have_one_unit(quantity[1], true_quantity[1])


def _have_one_unit(unit: str, other: str) -> bool:
    """Return whether two units are the same, or one is missing."""
    return not unit or not other or unit.rstrip("s.") == other.rstrip("s.")


def _parse_quantity(label: str) -> tuple[Fraction, str] | None:
    """Return the exact value of a label and its unit ("" without one), or None if it is no number."""
    text = without_latex(label)
    if len(sides := EQUALS.split(text)) > 1 and len(text) <= MAX_EQUATION:
        quantity = _split_unit(sides[-1])
        return quantity if quantity and _is_one_equation(sides, quantity) else None
    return _split_unit(text)


def _split_unit(text: str) -> tuple[Fraction, str] | None:
    """Return the exact value of a number with or without a unit, and the unit; None if it is neither."""
    value = _parse_number(text)
    if value is not None:
        return value, ""
    if CAPITAL_MAGNITUDE.search(text):
        return None
    text = normalise_label(text)
    number = NUMBER_START.match(text)
    if number is None or not is_unit(text[number.end() :]):
        return None
    value = _parse_number(number[0])
    return None if value is None else (value, text[number.end() :].strip())


def _is_one_equation(sides: list[str], last: tuple[Fraction, str]) -> bool:
    """Return whether sides such as "x", "3 + 3" and "6" state one value, as far as they are quantities of one unit.

    last: the quantity of the last side. A side in the middle that is no quantity has no digit.
    """
    if SEVERAL.search(sides[0]):
        return False
    for place, side in enumerate(sides[:-1]):
        if (quantity := _split_unit(side)) is not None:
            if quantity[0] != last[0] and _have_one_unit(quantity[1], last[1]):
                return False
        elif place and (SEVERAL.search(side) or re.search(r"\d", side)):
            return False
    return True


def _fold(text: str) -> str:
    text = unicodedata.normalize("NFKC", MIXED.sub(" ", text)).casefold().translate(SPELLINGS)
    text = SIGN_AFTER.sub("", SIGN_BEFORE.sub("", " ".join(text.split())))
    return THOUSANDS.sub(lambda number: number[0].replace(",", ""), text)


def _parse_number(label: str) -> Fraction | None:
    """Return the exact value of a label, or None if it is not a number."""
    text = normalise_label(label)
    equation = _fold(label).rstrip(" .,;:?")
    try:
        if NUMBER.fullmatch(text):
            return Fraction(text)
        if mixed := MIXED_NUMBER.fullmatch(text):
            size = int(mixed[2]) + Fraction(mixed[3])
            return -size if mixed[1] == "-" else size
        if ARITHMETIC.fullmatch(equation) and not UNSPACED.search(equation):
            return evaluate_equation(equation)
    except (ValueError, ZeroDivisionError):
        pass
    return None
