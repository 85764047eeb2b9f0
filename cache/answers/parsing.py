"""Parse the text of a model into rationale and label: one parser for capture and for judging.

Knows nothing of tokens, prompts or models. labels.py compares labels.
"""

import re
from dataclasses import dataclass
from typing import Literal

from cache.answers.reasoning import find_reasoning_end, is_open_reasoning

Status = Literal["parsed", "no_label", "no_rationale"]

# Around a label: LaTeX, code, and tags, each with its end. The inner text must not contain the end again.
WRAPPERS = (
    ("\\[", "\\]"),
    ("\\(", "\\)"),
    ("$$", "$$"),
    ("$", "$"),
    ("```", "```"),
    ("<answer>", "</answer>"),
)
LATEX_COMMAND = re.compile(r"\\(?:boxed|fbox|text|textbf|textit|mathrm|mathbf|mbox)\s*\{")
DISPLAY_MATH = re.compile(r"[ \t*_:]*(\$\$|\\\[)")
CODE_FENCE = re.compile(r"```[\w+-]*[ \t]*\r?\n")
QUOTES = ("''", '""', "‘’", "“”", "«»", "``", "**", "__")


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """The parts of a text. Offsets count characters, so that tokens can be assigned to segments.

    rationale: the text before the marker, stripped. rationale_end: offset of the marker.
    label: exactly text[label_start:label_end]; empty if status is "no_label".
    """

    rationale: str
    label: str
    status: Status
    rationale_end: int
    label_start: int
    label_end: int


def parse_answer(text: str, marker: str, stop: str = "", reasoning_end: int | None = None) -> ParsedAnswer:
    """Split a response into rationale and label. Reasoning before the answer is the rationale, or the start of it.

    marker: text such as "Answer:", matched without regard to case. The last match counts, including markdown just
        before it and before its colon. The label is the rest of its line, or the next line that is not empty, or the
        block of code that begins there; without surrounding spaces, a leading colon, a final period, quotes, asterisks,
        and the LaTeX around it. With an empty marker, the whole stripped text is the label and there is no rationale.
    stop: text such as "Q:" that begins the next question. From its first match at the start of a line, the text is
        ignored; a match without text before it does not count.
    reasoning_end: offset at which the answer begins after reasoning; None to look for tags such as <think>.
    status: "no_label" if the marker is missing or its line is empty; the rationale is then the text that is there.
        "no_rationale" if there is only a label.
    """
    begin = find_reasoning_end(text) if reasoning_end is None else reasoning_end
    end = find_stop(text, stop, begin)
    if not marker:
        start, label_end = _strip_span(text, begin, end)
        status: Status = "parsed" if start < label_end else "no_label"
        return ParsedAnswer(text[:begin].strip(), text[start:label_end], status, begin, start, label_end)
    matches = list(_marker_pattern(marker).finditer(text, begin, end))
    if not matches:
        return ParsedAnswer(text[:end].strip(), "", "no_label", end, end, end)
    marker_start, marker_end = matches[-1].span()
    emphasis = text[len(text[:marker_start].rstrip("*_")) : marker_start]
    if text.startswith(emphasis, marker_end, end):  # the emphasis that began before the marker ends behind it
        marker_end += len(emphasis)
    start, label_end = _strip_decoration(text, *_label_line(text, marker_end, end))
    rationale_end = max(begin, _marker_start(text, marker_start))
    rationale = text[:rationale_end].strip()
    status = "no_label" if start == label_end else "parsed" if rationale else "no_rationale"
    return ParsedAnswer(rationale, text[start:label_end], status, rationale_end, start, label_end)


def find_stop(text: str, stop: str, begin: int = 0) -> int:
    """Return the offset at which `stop` begins a line and text precedes it, or the length of the text.

    begin: offset of the answer. What is before it is not searched. In reasoning that has not ended, nothing is.
    """
    if stop and (begin or not is_open_reasoning(text)):
        for match in re.finditer(rf"^[ \t]*{re.escape(stop)}", text, re.MULTILINE):
            if text[begin : match.start()].strip():
                return match.start()
    return len(text)


def _marker_pattern(marker: str) -> re.Pattern[str]:
    """Return the pattern of a marker. Emphasis may end before its colon, as in "**Answer**: 5"."""
    words = marker.rstrip().removesuffix(":")
    pattern = re.escape(marker)
    if words and words != marker.rstrip():
        pattern = rf"{re.escape(words)}(?:[*_]{{1,3}}[ \t]*)?{re.escape(marker[len(words) :])}"
    return re.compile(pattern, re.IGNORECASE)


def _marker_start(text: str, start: int) -> int:
    """Return the offset of a marker including its heading or emphasis, as in "### **Answer:** 5"."""
    line_start = text.rfind("\n", 0, start) + 1
    if not text[line_start:start].strip(" \t#>*_"):
        return line_start
    return len(text[:start].rstrip("*_"))


def _label_line(text: str, start: int, end: int) -> tuple[int, int]:
    """Return the offsets of the line with the label: the rest of this one, or the next one with more than emphasis."""
    while True:
        if fence := CODE_FENCE.match(text, start, end):
            closing = text.find("```", fence.end(), end)
            return fence.end(), closing if closing >= 0 else end
        if display := DISPLAY_MATH.match(text, start, end):
            mark = "$$" if display[1] == "$$" else "\\]"
            if (found := text.find(mark, display.end(), end)) >= 0:
                return start, found + len(mark)
        line_end = text.find("\n", start, end)
        line_end = line_end if line_end >= 0 else end
        # Emphasis, or a colon, that belongs to the marker.
        if line_end == end or text[start:line_end].strip(" \t\r*_:"):
            return start, line_end
        start = line_end + 1


def _strip_span(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    start += len(piece) - len(piece.lstrip())
    return start, start + len(piece.strip())


def _strip_decoration(text: str, start: int, end: int) -> tuple[int, int]:
    """Return the offsets of a label without decoration. Only paired quotes are removed: 5' and "a" or "b" stay."""
    while True:
        start, end = _strip_span(text, start, end)
        piece = text[start:end]
        # Bold text can begin before the marker and end after the label, so one half of the pair is removed alone.
        if piece.startswith("**"):
            start += 2
        elif piece.startswith(":"):
            start += 1
        elif piece.endswith("**"):
            end -= 2
        elif piece.endswith("."):
            end -= 1
        elif (inner := _unwrap(piece)) is not None:
            start, end = start + inner[0], start + inner[1]
        elif len(piece) > 1 and piece[0] + piece[-1] in QUOTES and not set(piece[1:-1]) & {piece[0], piece[-1]}:
            start, end = start + 1, end - 1
        else:
            return start, end


def _unwrap(piece: str) -> tuple[int, int] | None:
    """Return the offsets of what is inside LaTeX, code or a tag that is around the whole piece, or None."""
    if (command := LATEX_COMMAND.match(piece)) and _closing_brace(piece, command.end()) == len(piece) - 1:
        return command.end(), len(piece) - 1
    for opening, closing in WRAPPERS:
        start, end = len(opening), len(piece) - len(closing)
        if start < end and piece.startswith(opening) and piece.endswith(closing) and closing not in piece[start:end]:
            return start, end
    return None


def _closing_brace(text: str, start: int) -> int:
    """Return the offset of the brace that closes the one before `start`, or -1."""
    depth = 1
    for i in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if not depth:
            return i
    return -1
