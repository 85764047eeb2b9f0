"""What a teacher's text answers: rationale and label told apart, the label compared with the truth, samples chosen."""

import ast
import operator
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

Status = Literal["parsed", "no_label", "no_rationale"]
LabelMatch = Literal["agrees", "disagrees", "unparsed", "no_truth"]
KeepPolicy = Literal["all", "agreeing", "rationalize"]

QUOTES = ("''", '""', "‘’", "“”", "«»", "``", "**", "__")
PUNCTUATION = ".,;:!?¿¡'\"`«»()[]{}*_。、「」"
# One spelling for characters that Unicode's compatibility forms leave apart.
SPELLINGS = str.maketrans("‐−–×÷⁄‘’“”", "---*//''\"\"")
OPENING = re.compile(rf"(?:(?!\.\d)[\s{re.escape(PUNCTUATION)}])+")
# Starts only where a run of signs does, and gives none back: a teacher that repeats one sign costs no square of time.
SIGN_BEFORE = re.compile(r"(?<![\d$£¥\u20a0-\u20cf])[$£¥\u20a0-\u20cf]++\s*(?=[+-]?\.?\d)")
SIGN_AFTER = re.compile(r"(?<=\d)\s*[%$£¥\u20a0-\u20cf]+(?!\s*\d)")
THOUSANDS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d,])")
# Without a space, "1½" would become 11/2.
MIXED = re.compile(r"(?<=\d)(?=[¼-¾⅐-⅞])")
# Bounded: an exponent of nine digits would take all memory to write out.
NUMBER = re.compile(r"[+-]?(?:\d{1,99}/\d{1,99}|(?:\d{1,99}(?:\.\d{0,99})?|\.\d{1,99})(?:e[+-]?\d{1,3})?)")
MIXED_NUMBER = re.compile(r"([+-]?)(\d{1,99}) (\d{1,99}/\d{1,99})")
ARITHMETIC = re.compile(r"[0-9 .()+*/-]{1,200}")
# Operators without spaces are those of dates and telephone numbers: 3/4/2020 is not 6/8/2020.
UNSPACED = re.compile(r"[0-9.)][-+/]")
OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """A text taken apart. Offsets count its characters, so that its tokens can be given segments.

    rationale: what precedes the marker, stripped. rationale_end: where the marker begins.
    label: text[label_start:label_end] exactly; empty where status is "no_label".
    """

    rationale: str
    label: str
    status: Status
    rationale_end: int
    label_start: int
    label_end: int


@dataclass(frozen=True, slots=True)
class Selection:
    """Which samples of an example are kept, and whether the teacher is to be asked again with the truth as a hint."""

    kept: tuple[int, ...]
    needs_hint: bool


def parse_answer(text: str, marker: str, stop: str = "") -> ParsedAnswer:
    """Rationale and label of what a teacher wrote.

    marker: text such as "Answer:" in any case. Its last occurrence counts, with the markdown just before it. The label
        is the rest of its line without spaces, a colon before it, a final period, and quotes or asterisks around it.
        Without a marker ("") all of the text is the label, only spaces are stripped, and no rationale is asked.
    stop: text such as "Q:" that begins the next question. All from its first occurrence at the start of a line that
        other text precedes is ignored.
    status: "no_label" where the marker is absent or nothing follows it on its line; the rationale is then what there
        is. "no_rationale" where only the label is there.
    """
    end = find_stop(text, stop)
    if not marker:
        start, label_end = _strip(text, 0, end)
        return ParsedAnswer(
            "", text[start:label_end], "parsed" if start < label_end else "no_label", 0, start, label_end
        )
    found = list(re.finditer(re.escape(marker), text[:end], re.IGNORECASE))
    if not found:
        return ParsedAnswer(text[:end].strip(), "", "no_label", end, end, end)
    line_end = text.find("\n", found[-1].end(), end)
    start, label_end = _bare(text, found[-1].end(), line_end if line_end >= 0 else end)
    rationale_end = _marker_start(text, found[-1].start())
    rationale = text[:rationale_end].strip()
    status: Status = "no_label" if start == label_end else "parsed" if rationale else "no_rationale"
    return ParsedAnswer(rationale, text[start:label_end], status, rationale_end, start, label_end)


def normalise_label(label: str) -> str:
    """The spelling by which labels are compared: one for all that differ only in form. normalise_label(it) is itself.

    Unicode NFKC, case folded, spaces collapsed, no punctuation at the ends (unless there is nothing else), no thousands
    separators in numbers, no currency or percent signs beside them. Signs, such as those of "-5" and "C++", stay.
    """
    while True:
        folded = _fold(label)
        opening = OPENING.match(folded)
        text = folded[opening.end() if opening else 0 :].rstrip(PUNCTUATION + " ") or folded
        if text == label:
            return text
        label = text


def labels_match(label: str, truth: str) -> bool:
    """Whether two labels say the same: equal exactly as numbers where both are, else equal once normalised.

    Numbers are finite decimals, fractions and mixed numbers, and since the labels of SVAMP are equations, also sums,
    differences, products and quotients whose operators stand between spaces: "( 10.0 - 4.0 )" agrees with "6".
    """
    value, true_value = _value(label), _value(truth)
    if value is not None and true_value is not None:
        return value == true_value
    return normalise_label(label) == normalise_label(truth)


def compare_label(parsed: ParsedAnswer, truth: str) -> LabelMatch:
    """The label against the truth. A blank truth is "no_truth" whatever was written; a rationale is not asked for."""
    if not truth.strip():
        return "no_truth"
    if parsed.status == "no_label":
        return "unparsed"
    return "agrees" if labels_match(parsed.label, truth) else "disagrees"


def select_samples(judgements: Sequence[LabelMatch], keep: KeepPolicy) -> Selection:
    """What becomes of the samples of one example.

    "all": kept, every one. "agreeing": those that agree, or that no truth can contradict. "rationalize": as
    "agreeing", and where none is kept the teacher needs the hint (STaR, https://arxiv.org/abs/2203.14465).
    """
    if keep == "all":
        return Selection(tuple(range(len(judgements))), False)
    kept = tuple(i for i, judgement in enumerate(judgements) if judgement in ("agrees", "no_truth"))
    return Selection(kept, keep == "rationalize" and bool(judgements) and not kept)


def find_stop(text: str, stop: str) -> int:
    if stop:
        for match in re.finditer(rf"^[ \t]*{re.escape(stop)}", text, re.MULTILINE):
            if text[: match.start()].strip():
                return match.start()
    return len(text)


def _marker_start(text: str, start: int) -> int:
    """Where a marker begins with its heading or emphasis, as in "### **Answer:** 5"."""
    line_start = text.rfind("\n", 0, start) + 1
    if not text[line_start:start].strip(" \t#>*_"):
        return line_start
    return len(text[:start].rstrip("*_"))


def _strip(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    start += len(piece) - len(piece.lstrip())
    return start, start + len(piece.strip())


def _bare(text: str, start: int, end: int) -> tuple[int, int]:
    """Bounds of a label without what surrounds it. Quotes go in pairs, so that 5' and "a" or "b" keep theirs."""
    while True:
        start, end = _strip(text, start, end)
        piece = text[start:end]
        # Bold that began before the marker ends after the label, or before it: one side of the pair is enough.
        if piece.startswith("**"):
            start += 2
        elif piece.startswith(":"):
            start += 1
        elif piece.endswith("**"):
            end -= 2
        elif piece.endswith("."):
            end -= 1
        elif len(piece) > 1 and piece[0] + piece[-1] in QUOTES and not set(piece[1:-1]) & {piece[0], piece[-1]}:
            start, end = start + 1, end - 1
        else:
            return start, end


def _fold(text: str) -> str:
    text = unicodedata.normalize("NFKC", MIXED.sub(" ", text)).casefold().translate(SPELLINGS)
    text = SIGN_AFTER.sub("", SIGN_BEFORE.sub("", " ".join(text.split())))
    return THOUSANDS.sub(lambda number: number[0].replace(",", ""), text)


def _value(label: str) -> Fraction | None:
    """The number that a label states, exactly, or None."""
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
    """Exact value of an expression of numbers, + - * / and brackets. Raises ValueError for any other."""
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
