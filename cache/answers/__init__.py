"""Answers: the text of a model becomes a rationale and a label, and labels are compared.

    parsing   parse_answer: the parts of a text, with their offsets
    reasoning where the answer begins after reasoning
    labels    labels_match: as numbers if both are numbers, else as text; latex, units: parts of it
    equations evaluate_equation: the exact value of arithmetic
    units     what may be the unit after a number

Capture selects responses with it, and tasks judge answers with it, so that both find the same label in a text.
It knows nothing of tokens, stores or models.
"""

from cache.answers.equations import evaluate_equation
from cache.answers.labels import labels_match, normalise_label
from cache.answers.parsing import ParsedAnswer, find_stop, parse_answer

__all__ = ["ParsedAnswer", "evaluate_equation", "find_stop", "labels_match", "normalise_label", "parse_answer"]
