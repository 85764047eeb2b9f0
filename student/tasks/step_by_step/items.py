"""Items: an input, its true label, and what a large model wrote about it. Knows no file format."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from cache.answers.equations import evaluate_equation
from cache.answers.labels import labels_match
from cache.json_documents import digest


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a large model wrote about an item: a rationale and a label, either of which may be missing (empty)."""

    rationale: str
    label: str


@dataclass(frozen=True, slots=True)
class Item:
    """One question.

    id: unique in its data set. label: the true one. is_equation: labels are arithmetic, and equal if their values are.
    rationale: of the data set itself, written by people; empty if it has none. explanations: those of the large model.
    """

    id: str
    input: str
    label: str
    is_equation: bool = False
    rationale: str = ""
    explanations: tuple[Explanation, ...] = ()


def value_of(label: str) -> Fraction | None:
    """The exact value of an equation; None if it is malformed."""
    try:
        return evaluate_equation(label)
    except ValueError:
        return None


def can_be_right(item: Item) -> bool:
    """Whether there is a right answer: the true label of an equation must have a value."""
    return not item.is_equation or value_of(item.label) is not None


def is_right(label: str, truth: str, is_equation: bool) -> bool:
    """Whether a label is right: an equation by its value, other labels as texts after normalisation."""
    if not is_equation:
        return bool(label.strip()) and labels_match(label, truth)
    value = value_of(label)
    return value is not None and value == value_of(truth)


def take_share(
    items: list[Item], share: float, salt: object, key: Callable[[Item], str] = lambda item: item.id
) -> list[Item]:
    """A share of the items, in their order. A smaller share with the same salt is a part of a larger one."""
    ranked = sorted(items, key=lambda item: digest([str(salt), key(item)]))
    chosen = {id(item) for item in ranked[: round(share * len(items))]}
    return [item for item in items if id(item) in chosen]
