"""Rationales and labels that a teacher of this project wrote: its answers, exported from a store as JSON Lines."""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from cache.answers.parsing import parse_answer
from cache.errors import InputError
from cache.examples.example import Example
from cache.examples.files.jsonl import read_examples
from student.tasks.step_by_step.examples import ANSWER_MARKER, ITEM, TASK
from student.tasks.step_by_step.items import Explanation, Item


def add_captured(items: list[Item], path: Path) -> tuple[list[Item], dict[str, int]]:
    """The items with what the teacher wrote about each, and how many answers were of no use, by reason.

    An answer to "predict:" is a label, one to "explain:" a rationale, and one to a question both, with ANSWER_MARKER
    between them, which stay together. Labels and rationales of different answers go together in their order if there
    are as many, or else the first label with all rationales. An item may have any number of answers.
    Raises InputError if an answer is not to an example of this task, or if no answer is to one of the items.
    """
    labels: dict[str, list[str]] = defaultdict(list)
    rationales: dict[str, list[str]] = defaultdict(list)
    whole: dict[str, list[Explanation]] = defaultdict(list)
    known, unknown = {item.id for item in items}, 0
    for example in read_examples(path):
        if ITEM not in example.metadata or TASK not in example.metadata:
            raise InputError(
                f"answers {path}: example {example.id} has no metadata {ITEM!r} and {TASK!r}, so it answers no example "
                "of step_by_step"
            )
        name = str(example.metadata[ITEM])
        if name not in known:
            unknown += 1
            continue
        rationale, label = _parts(example)
        if example.metadata[TASK] not in ("predict", "explain"):
            whole[name] += [Explanation(rationale, label)] if rationale or label else []
            continue
        labels[name] += [label] if label else []
        rationales[name] += [rationale] if rationale else []
    if items and not labels and not rationales and not whole:
        raise InputError(
            f"answers {path}: none of them is to one of the {len(items):,} items; give those of this data set"
        )
    explained = [
        replace(item, explanations=(*whole[item.id], *_pair(rationales[item.id], labels[item.id]))) for item in items
    ]
    return explained, {"answers_to_other_items": unknown}


def _parts(example: Example) -> tuple[str, str]:
    """Rationale and label of an answer."""
    text = (example.rationale + example.response).strip()
    if example.metadata[TASK] == "predict":
        return "", text
    if example.metadata[TASK] == "explain":
        return text, ""
    if "teacher_label" in example.metadata:  # the capture split it, at a marker of its own
        label = str(example.metadata["teacher_label"])
        return (example.rationale.strip(), label) if label else ("", "")
    parsed = parse_answer(text, ANSWER_MARKER)
    return ("", "") if parsed.status == "no_label" else (parsed.rationale, parsed.label)


def _pair(rationales: list[str], labels: list[str]) -> tuple[Explanation, ...]:
    """One explanation a rationale. Labels that came with it, or else the first one of the item."""
    if not rationales:
        return tuple(Explanation("", label) for label in labels)
    pairs = len(labels) == len(rationales)
    return tuple(
        Explanation(rationale, labels[i] if pairs else (labels[0] if labels else ""))
        for i, rationale in enumerate(rationales)
    )
