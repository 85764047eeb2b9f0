"""What a loss means for given targets: which terms can be taken without bias, and the numbers that they need.

A store's targets come in two kinds. Exact ones (topk, nucleus) name the largest ids and leave the rest to a tail.
Estimates (threshold, sampled) are unbiased for every id, so only what is linear in the teacher's law can be learned
from them: its cross-entropy. Class probabilities are exact and complete.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from cache.errors import StoreError
from cache.rows.spec import TargetSpec
from student.losses.settings import LossSettings, TermSettings

TargetKind = Literal["none", "exact", "estimated", "complete"]


@dataclass(frozen=True, slots=True)
class TargetForm:
    """What the rows of a source are.

    kind: none, texts alone; exact ids with a tail; estimates of a whole law; complete laws over few classes.
    temperatures: those other than 1 whose log-normalisers the rows have, in the order of their columns.
    """

    kind: TargetKind
    temperatures: tuple[float, ...] = ()
    entropy: bool = False

    @classmethod
    def of(cls, targets: TargetSpec) -> "TargetForm":
        """That of a store."""
        if targets.max_entries == 0:
            return cls("none")
        return cls("estimated" if targets.has_sampled else "exact", targets.temperatures, targets.entropy)


def require_possible(loss: LossSettings, form: TargetForm, where: str) -> None:
    """Raise StoreError with the reason where a term of the loss is undefined for such targets, or biased."""
    for term in loss.mix:
        if reason := _obstacle(term, form):
            raise StoreError(f"{where}: {reason}")


def _obstacle(term: TermSettings, form: TargetForm) -> str:
    if term.objective == "hard_label":
        return ""
    if form.kind == "none":
        return (
            f"holds texts without targets, and {term.objective} needs a teacher's distributions; capture topk, nucleus "
            'or threshold targets, or train with loss.objective = "hard_label"'
        )
    if form.kind == "estimated":
        if term.objective != "forward_kl":
            return (
                f"holds unbiased estimates (threshold or sampled targets), and {term.objective} is not linear in the "
                "teacher's law, so it would be biased; use forward_kl, or capture topk or nucleus targets"
            )
        if term.temperature != 1:
            return (
                f"holds unbiased estimates (threshold or sampled targets), from which a temperature of "
                f"{term.temperature} cannot be had without bias; use temperature = 1, or capture topk targets with "
                "targets.temperatures"
            )
        if term.tail == "renormalise":
            return "holds unbiased estimates of the whole law; there is no tail to renormalise, leave out loss.tail"
    if form.kind == "complete" and term.tail == "renormalise":
        return "holds whole distributions over classes; there is no tail to renormalise, leave out loss.tail"
    if form.kind == "exact" and term.temperature != 1 and term.temperature not in form.temperatures:
        known = ", ".join(f"{t:g}" for t in (1.0, *form.temperatures))
        return (
            f"holds what temperatures {known} need, not {term.temperature:g}: the log-probabilities of the largest ids "
            f"do not tell the normaliser; choose one of these, or capture again with targets.temperatures = "
            f"[{term.temperature:g}]"
        )
    return ""


@dataclass(frozen=True, slots=True)
class Objectives:
    """A loss made ready for the targets of one source.

    segment_weights: float32 [terms, segments]. average_examples: a mean over examples rather than tokens.
    """

    terms: tuple[TermSettings, ...]
    segment_weights: npt.NDArray[np.float32]
    average_examples: bool
    form: TargetForm

    @classmethod
    def of(cls, loss: LossSettings, form: TargetForm) -> "Objectives":
        weights = [(term.segments or loss.segments).by_segment for term in loss.mix]
        return cls(loss.mix, np.array(weights, np.float32), loss.average == "examples", form)

    @property
    def temperatures(self) -> tuple[float, ...]:
        """Those at which the teacher's rows are needed, each once; none without a teacher."""
        return tuple(dict.fromkeys(term.temperature for term in self.terms if term.objective != "hard_label"))

    @property
    def prompts_count(self) -> bool:
        """Whether any term weighs the tokens of prompts."""
        return bool((self.segment_weights[:, 0] > 0).any())
