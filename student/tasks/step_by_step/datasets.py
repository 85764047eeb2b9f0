"""The data sets of step-by-step distillation, in the files of its code, google-research/distilling-step-by-step.

    DATA/NAME/NAME_train.json, NAME_test.json, NAME_valid.json where there is one      one JSON object an item

and the generic files of the fork (dermatologist/distilling-step-by-step), with `input`, `label` and `rationale`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.answers.equations import evaluate_equation
from cache.errors import InputError
from cache.examples.files.json_file import read_json_values
from student.tasks.step_by_step.items import Item

# Labels of natural language inference by the number that the files have.
NLI_LABELS = ("entailment", "neutral", "contradiction")
CHOICES = 5


@dataclass(frozen=True, slots=True)
class DataSet:
    """A data set.

    read: makes (input, label, rationale of people) of an object; raises ValueError in plain words. The second argument
        separates two sentences. is_equation: labels are arithmetic. has_other_answers: some labels are none, such as
        the ratio "1:2". has_valid: it has a file for validation.
    trains_with: another data set whose training items are added.
    """

    name: str
    read: Callable[[Mapping[str, Any], str], tuple[str, str, str]]
    is_equation: bool = False
    has_other_answers: bool = False
    has_valid: bool = False
    trains_with: str = ""


def read_split(data_set: DataSet, data: Path, split: str, separator: str) -> list[Item]:
    """Read the items of a split. Raises InputError, with file and line, for one that is not of the data set's form.

    Of a data set that has other answers than equations, these are items too: outputs belong to items by their order.
    """
    path = split_file(data_set, data, split)
    items = []
    for number, each in enumerate(read_json_values(path, "data file")):
        try:
            if not isinstance(each.value, dict):
                raise ValueError("is not a JSON object")
            text, label, rationale = data_set.read(each.value, separator)
            if data_set.is_equation and not data_set.has_other_answers:
                _require_value(label)
        except ValueError as error:
            raise InputError(f"data file {path}, line {each.line}: {error}") from None
        items.append(Item(f"{data_set.name}-{split}-{number}", text, label, data_set.is_equation, rationale))
    return items


def split_file(data_set: DataSet, data: Path, split: str) -> Path:
    """The file of a split."""
    return data / data_set.name / f"{data_set.name}_{split}.json"


def _require_value(label: str) -> None:
    """Raise ValueError if a true label is no equation with a value: no answer could be right."""
    try:
        evaluate_equation(label)
    except ValueError as error:
        raise ValueError(f"label {label!r} is no equation with a value: {error}") from None


def _text(value: Mapping[str, Any], key: str) -> str:
    if key not in value:
        raise ValueError(f"has no {key!r}; it has {', '.join(map(repr, value)) or 'no key'}")
    if not isinstance(value[key], str) or not value[key].strip():
        raise ValueError(f"{key!r} is {value[key]!r}, not a text")
    return str(value[key])


def _optional(value: Mapping[str, Any], key: str) -> str:
    return _text(value, key) if value.get(key) not in (None, "") else ""


def _plain(value: Mapping[str, Any], separator: str) -> tuple[str, str, str]:
    return _text(value, "input"), _text(value, "label"), _optional(value, "rationale")


def _word_problem(value: Mapping[str, Any], separator: str) -> tuple[str, str, str]:
    answer = _text(value, "Answer")
    return f"{_text(value, 'Body')}\n{_text(value, 'Question')}", answer.split(" ")[0], ""


def _inference(rationale: str) -> Callable[[Mapping[str, Any], str], tuple[str, str, str]]:
    """Premise and hypothesis, joined by the separator. rationale: key of the explanation by people."""

    def read(value: Mapping[str, Any], separator: str) -> tuple[str, str, str]:
        label = value.get("label")
        if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(NLI_LABELS):
            label = NLI_LABELS[label]
        if label not in NLI_LABELS:
            raise ValueError(f"'label' is {label!r}, neither 0, 1, 2 nor one of {', '.join(NLI_LABELS)}")
        text = separator.join([_text(value, "premise"), _text(value, "hypothesis")])
        return text, str(label), _optional(value, rationale)

    return read


def _choice(value: Mapping[str, Any], separator: str) -> tuple[str, str, str]:
    choices = value.get("choices")
    if not isinstance(choices, list) or len(choices) != CHOICES or not all(isinstance(each, str) for each in choices):
        raise ValueError(f"'choices' is {choices!r}, not {CHOICES} texts")
    answer = _text(value, "answer")
    if answer not in choices:
        raise ValueError(f"'answer' is {answer!r}, none of the choices {', '.join(choices)}")
    listed = "\n".join(f"({letter}) {choice}" for letter, choice in zip("abcde", choices, strict=True))
    return f"{_text(value, 'question')}\nAnswer Choices:\n{listed}", answer, _optional(value, "abstractive_explanation")


DATA_SETS = {
    each.name: each
    for each in (
        DataSet("svamp", _plain, is_equation=True),
        DataSet("asdiv", _word_problem, is_equation=True, has_other_answers=True, trains_with="svamp"),
        DataSet("cqa", _choice),
        DataSet("esnli", _inference("explanation_1"), has_valid=True),
        DataSet("anli1", _inference("reason"), has_valid=True),
        DataSet("anli2", _inference("reason"), has_valid=True),
        DataSet("anli3", _inference("reason"), has_valid=True),
        DataSet("generic", _plain),
    )
}
