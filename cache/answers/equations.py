"""Evaluate arithmetic exactly: numbers, + - * / and brackets. Nothing else is read, and no code is run."""

import operator
import re
from collections.abc import Callable
from fractions import Fraction

# Longer texts are no answers of a model to a word problem. The limit bounds the size of the result.
MAX_LENGTH = 400
TOKEN = re.compile(r"\s*([0-9]{1,99}(?:\.[0-9]{0,99})?|\.[0-9]{1,99}|[-+*/()])")
OPERATORS: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
# Signs of a number or bracket bind closest.
PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2, "plus": 3, "minus": 3}
SIGNS = {"+": "plus", "-": "minus"}


def evaluate_equation(text: str) -> Fraction:
    """Return the exact value of an expression such as "( 8.0 - 3.0 ) * 2".

    The algorithm is Dijkstra's shunting yard, which needs no recursion. Raises ValueError, in plain words, for
    anything that is no such expression, and for a division by zero.
    """
    values: list[Fraction] = []
    pending: list[str] = []
    expects_value = True
    for token in _tokens(text):
        if token == ")":
            if expects_value:
                raise ValueError("a bracket closes where a number is missing")
            _reduce(values, pending, 0)
            if not pending:
                raise ValueError("a bracket closes that was not opened")
            pending.pop()
        elif expects_value:
            if token in "*/":
                raise ValueError(f"{token!r} has no number before it")
            if token in "+-(":
                pending.append(SIGNS.get(token, token))
                continue
            values.append(Fraction(token))
            expects_value = False
        elif token in OPERATORS:
            _reduce(values, pending, PRECEDENCE[token])
            pending.append(token)
            expects_value = True
        else:
            raise ValueError(f"{token!r} follows a number without an operator")
    if expects_value:
        raise ValueError("a number is missing at the end")
    _reduce(values, pending, 0)
    if pending:
        raise ValueError("a bracket is not closed")
    return values[0]


def _tokens(text: str) -> list[str]:
    """The numbers, operators and brackets of a text. Raises ValueError for any other character."""
    if len(text) > MAX_LENGTH:
        raise ValueError(f"is longer than {MAX_LENGTH} characters")
    tokens, position, text = [], 0, text.rstrip()
    while position < len(text):
        match = TOKEN.match(text, position)
        if match is None:
            raise ValueError(f"{text[position:].strip()[:1]!r} is no part of arithmetic")
        tokens.append(match[1])
        position = match.end()
    return tokens


def _reduce(values: list[Fraction], pending: list[str], precedence: int) -> None:
    """Apply the pending operators back to the last open bracket, as far as they bind as closely as `precedence`."""
    while pending and pending[-1] != "(" and PRECEDENCE[pending[-1]] >= precedence:
        name = pending.pop()
        right = values.pop()
        if name in OPERATORS:
            if name == "/" and not right:
                raise ValueError("divides by zero")
            values.append(OPERATORS[name](values.pop(), right))
        else:
            values.append(-right if name == "minus" else right)
