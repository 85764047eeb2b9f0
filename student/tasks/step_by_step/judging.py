"""Scores of one answer, and metrics over all of them."""

import re
from collections.abc import Sequence

from cache.answers.parsing import parse_answer
from cache.errors import InputError
from cache.examples.example import Example
from student.tasks.step_by_step.examples import ANSWER_MARKER, ITEM, TASK
from student.tasks.step_by_step.items import is_right, value_of
from student.tasks.text_scores import rouge

# A step of a rationale, such as "12 - 5 = 7". Without backtracking: a bad model repeats one digit a hundred times.
STEP = re.compile(r"([0-9.()+*/\s-]++)=\s*(-?[0-9]+(?:\.[0-9]+)?)")

# A number in words of a rationale, in ASCII digits as equations have it, and the comma between its thousands. A minus
# after a number, a bracket or a letter is no sign: it subtracts, or joins words.
NUMBER = re.compile(r"(?:(?<![\w).%])(?<![0-9)%]\s)-)?[0-9]+(?:\.[0-9]+)?")
THOUSANDS = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")


def label_of(text: str) -> str:
    """The label in an answer: what follows the marker, or all of it if there is no marker."""
    parsed = parse_answer(text, ANSWER_MARKER)
    return parsed.label if parsed.status != "no_label" else parse_answer(text, "").label


def rationale_of(example: Example, text: str) -> str:
    """The rationale in an answer: all of it to "explain:", and what precedes the marker in other answers."""
    if example.metadata[TASK] == "explain":
        return text.strip()
    parsed = parse_answer(text, ANSWER_MARKER)
    return parsed.rationale if parsed.status == "parsed" else ""


def count_steps(rationale: str) -> tuple[int, int]:
    """The number of steps such as "12 - 5 = 7" in a rationale, and of those that are right."""
    steps = right = 0
    for written, result in STEP.findall(THOUSANDS.sub("", rationale)):
        left = re.split(r"\.\s", written.strip())[-1]  # the number before a full stop belongs to another sentence
        if not re.search(r"[0-9)]\s*[-+*/]", left):
            continue
        steps += 1
        right += is_right(left, result, True)
    return steps, right


def reaches(rationale: str, truth: str) -> bool:
    """Whether the last number of a rationale is the value of the true equation."""
    numbers = NUMBER.findall(THOUSANDS.sub("", rationale))
    value = value_of(truth)
    return bool(numbers) and value is not None and value_of(numbers[-1]) == value


def judge(example: Example, text: str) -> dict[str, float]:
    """The scores of one answer.

    labels: 1 if a label was asked for, and right, malformed: of that label. rationales: 1 if a rationale was asked for,
    parsed: 1 if there is one, steps, right_steps: its arithmetic, reaches: 1 if it ends at the true value.
    rouge_l: of the rationale against the example's own, if it has one (compared: 1).
    """
    if ITEM not in example.metadata or TASK not in example.metadata:
        raise InputError(
            f"example {example.id}: its metadata has no {ITEM!r} and {TASK!r}, so it is not an example of "
            "step_by_step; give the [task] that built the examples"
        )
    task, is_equation = example.metadata[TASK], bool(example.metadata["equation"])
    truth = str(example.metadata["label"])
    scores = dict.fromkeys(
        ("labels", "right", "malformed", "rationales", "parsed", "steps", "right_steps", "reaches"), 0.0
    )
    if task in ("predict", "question"):
        label = label_of(text)
        scores["labels"] = 1.0
        scores["right"] = float(is_right(label, truth, is_equation))
        scores["malformed"] = float(not label or (is_equation and value_of(label) is None))
    if task in ("explain", "question"):
        rationale = rationale_of(example, text)
        steps, right_steps = count_steps(rationale)
        scores |= {"rationales": 1.0, "parsed": float(bool(rationale)), "steps": steps, "right_steps": right_steps}
        scores["reaches"] = float(is_equation and reaches(rationale, truth))
    reference = example.rationale if task in ("explain", "question") else ""
    scores["compared"] = float(bool(reference))
    scores["rouge_l"] = rouge(rationale_of(example, text), reference)["rougeL"] if reference else 0.0
    return scores


def summarise(scores: Sequence[dict[str, float]]) -> dict[str, float]:
    """The metrics of the domain. Those of rationales are left out if no rationale was asked for, and so on."""
    totals = {name: sum(score[name] for score in scores) for name in (scores[0] if scores else ())}
    metrics: dict[str, float] = {}
    if labels := totals.get("labels"):
        metrics |= {"label_accuracy": totals["right"] / labels, "malformed_labels": totals["malformed"] / labels}
    if rationales := totals.get("rationales"):
        metrics["rationale_parse_rate"] = totals["parsed"] / rationales
        metrics["rationale_reaches_answer"] = totals["reaches"] / rationales
    if steps := totals.get("steps"):
        metrics["rationale_steps_right"] = totals["right_steps"] / steps
    if compared := totals.get("compared"):
        metrics["rationale_rouge_l"] = totals["rouge_l"] / compared
    return metrics
