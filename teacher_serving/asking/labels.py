"""Normalise labels and compare them: as exact numbers if both are numbers, else as text."""

import ast
import operator
import re
import unicodedata
from collections.abc import Callable
from fractions import Fraction

PUNCTUATION = ".,;:!?¿¡'\"`«»()[]{}*_。、「」"
# Characters that Unicode NFKC leaves different, mapped to one spelling.
SPELLINGS = str.maketrans("‐−–×÷⁄‘’“”", "---*//''\"\"")
OPENING = re.compile(rf"(?:(?!\.\d)[\s{re.escape(PUNCTUATION)}])+")
# Matches only at the start of a run of signs, without backtracking: a long run would otherwise take quadratic time.
SIGN_BEFORE = re.compile(r"(?<![\d$£¥\u20a0-\u20cf])[$£¥\u20a0-\u20cf]++\s*(?=[+-]?\.?\d)")
SIGN_AFTER = re.compile(r"(?<=\d)\s*[%$£¥\u20a0-\u20cf]+(?!\s*\d)")
THOUSANDS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d,])")
# NFKC turns "1½" into "11/2" unless a space is inserted first.
MIXED = re.compile(r"(?<=\d)(?=[¼-¾⅐-⅞])")
# Lengths are limited: the value of a number with a nine-digit exponent would not fit in memory.
NUMBER = re.compile(r"[+-]?(?:\d{1,99}/\d{1,99}|(?:\d{1,99}(?:\.\d{0,99})?|\.\d{1,99})(?:e[+-]?\d{1,3})?)")
MIXED_NUMBER = re.compile(r"([+-]?)(\d{1,99}) (\d{1,99}/\d{1,99})")
ARITHMETIC = re.compile(r"[0-9 .()+*/-]{1,200}")
# Operators without spaces occur in dates and telephone numbers: 3/4/2020 must not equal 6/8/2020.
UNSPACED = re.compile(r"[0-9.)][-+/]")
OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def normalise_label(label: str) -> str:
    """Return the form in which labels are compared as text. Idempotent.

    Unicode NFKC, case-folded, spaces collapsed, no punctuation at the ends (unless there is nothing else), no thousands
    separators in numbers, no currency or percent signs next to numbers. Signs as in "-5" and "C++" stay.
    """
    while True:
        folded = _fold(label)
        opening = OPENING.match(folded)
        text = folded[opening.end() if opening else 0 :].rstrip(PUNCTUATION + " ") or folded
        if text == label:
            return text
        label = text


def labels_match(label: str, truth: str) -> bool:
    """Return whether two labels are equal: exactly as numbers if both are numbers, else after normalisation.

    Numbers are finite decimals, fractions and mixed numbers. Because labels of the SVAMP data set are equations, sums,
    differences, products and quotients with spaces around the operators count as numbers too: "( 10.0 - 4.0 )" matches
    "6".
    """
    value, true_value = _parse_number(label), _parse_number(truth)
    if value is not None and true_value is not None:
        return value == true_value
    return normalise_label(label) == normalise_label(truth)


def _fold(text: str) -> str:
    text = unicodedata.normalize("NFKC", MIXED.sub(" ", text)).casefold().translate(SPELLINGS)
    text = SIGN_AFTER.sub("", SIGN_BEFORE.sub("", " ".join(text.split())))
    return THOUSANDS.sub(lambda number: number[0].replace(",", ""), text)


def _parse_number(label: str) -> Fraction | None:
    """Return the exact value of a label, or None if it is not a number."""
    text = normalise_label(label)
    equation = _fold(label).rstrip(" .,;:!?")
    try:
        if NUMBER.fullmatch(text):
            return Fraction(text)
        if mixed := MIXED_NUMBER.fullmatch(text):
            size = int(mixed[2]) + Fraction(mixed[3])
            return -size if mixed[1] == "-" else size
        if ARITHMETIC.fullmatch(equation) and not UNSPACED.search(equation):
            return _evaluate(ast.parse(equation.strip(), mode="eval").body, equation.strip())
    except (ValueError, SyntaxError, ZeroDivisionError):
        pass
    return None


def _evaluate(node: ast.expr, text: str) -> Fraction:
    """Return the exact value of an expression of numbers, + - * / and brackets. Raises ValueError for anything else."""
    match node:
        case ast.Constant():
            return Fraction(ast.get_source_segment(text, node) or "")
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_evaluate(operand, text)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _evaluate(operand, text)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return OPERATORS[type(op)](_evaluate(left, text), _evaluate(right, text))
    raise ValueError(f"{text!r}: not arithmetic")
