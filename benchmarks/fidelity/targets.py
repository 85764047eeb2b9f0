"""Kinds of targets: what is kept of each row, and the loss that a student of it has."""

from dataclasses import dataclass, replace
from typing import Literal

from cache.errors import InputError
from cache.rows.spec import TargetSpec
from student.losses.settings import LossSettings
from student.losses.target_forms import TargetForm
from student.losses.weighted_objectives import WeightedObjectives


@dataclass(frozen=True, slots=True)
class Rows:
    """What is kept of each row.

    exact_from: probability from which entries are exact, where that is another than the threshold. Below it, each draw
        stands for the threshold. The product has no such mode; it is here to be compared.
    """

    spec: TargetSpec
    exact_from: float = 0.0

    @property
    def is_product(self) -> bool:
        """Whether the product can make such rows, and a store of them gives back what was written."""
        return not self.exact_from

    @property
    def stored_as(self) -> TargetSpec | None:
        """The spec of a store that takes the same bytes, for the ids of draws are written and not what they stand for.

        None if there is none: draws that come more than once need a number each.
        """
        if self.is_product:
            return self.spec
        return replace(self.spec, threshold=self.exact_from) if self.exact_from < self.spec.threshold else None


@dataclass(frozen=True, slots=True)
class Target:
    """What a student learns from. rows: None for real tokens and for the whole distribution."""

    name: str
    rows: Rows | None
    tail: Literal["bucket", "renormalise"] = "bucket"

    @property
    def objectives(self) -> WeightedObjectives:
        """The product's loss: forward KL to what the store has, or real tokens."""
        if self.rows is None:
            return WeightedObjectives.of(LossSettings(objective="hard_label"), TargetForm("none"))
        return WeightedObjectives.of(LossSettings(tail=self.tail), TargetForm.of(self.rows.spec))


HARD, FULL = Target("hard_label", None), Target("full", None)


def topk(k: int, tail: Literal["bucket", "renormalise"] = "bucket") -> Target:
    return Target(f"topk_{k}_{'tail' if tail == 'bucket' else 'renormalised'}", Rows(TargetSpec("topk", k)), tail)


def nucleus(mass: float, k: int = 128) -> Target:
    return Target(f"nucleus_{mass:g}", Rows(TargetSpec("nucleus", k, mass=mass)))


def sampled(draws: int) -> Target:
    return Target(f"sampled_{draws}", Rows(TargetSpec("sampled", draws=draws)))


def systematic(draws: int) -> Target:
    return Target(f"systematic_{draws}", Rows(TargetSpec("sampled", draws=draws, systematic=True)))


def threshold(tau: float) -> Target:
    return Target(f"threshold_{tau:g}", Rows(TargetSpec("threshold", threshold=tau)))


def mixed(exact_from: float, unit: float) -> Target:
    """Exact from one probability up, and systematic draws below that stand for another one each."""
    return Target(f"exact_{exact_from:g}_draws_{unit:g}", Rows(TargetSpec("threshold", threshold=unit), exact_from))


# On a teacher that is trained here.
SMALL = (
    HARD,
    topk(12, "renormalise"),
    topk(50, "renormalise"),
    topk(12),
    topk(50),
    topk(64),
    sampled(12),
    sampled(50),
    *(systematic(draws) for draws in (5, 8, 12, 20, 32, 50)),
    *(threshold(tau) for tau in (0.2, 0.1, 0.05, 0.035, 0.025, 0.0175, 0.0125)),
)
# On a real one.
REAL = (
    HARD,
    *(topk(k) for k in (16, 64, 128)),
    *(nucleus(mass) for mass in (0.9, 0.98)),
    *(sampled(draws) for draws in (12, 20, 50)),
    *(systematic(draws) for draws in (12, 20, 50)),
    *(threshold(tau) for tau in (0.1, 0.05, 0.025)),
    mixed(0.0125, 0.05),
    mixed(0.2, 0.05),
)


def named_targets(names: str) -> tuple[Target, ...]:
    """Of a list with commas. Raises InputError for an unknown one."""
    known = {target.name: target for target in (FULL, *SMALL, *REAL)}
    selected = [name for name in names.split(",") if name]
    if unknown := sorted(set(selected) - set(known)):
        raise InputError(f"unknown kind of target {unknown[0]!r}; choose from {', '.join(known)}")
    return tuple(known[name] for name in selected)
