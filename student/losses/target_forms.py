"""The form of a source's targets, and which terms of a loss it can be used for without bias.

A store's targets come in two kinds. Exact targets (topk, nucleus) contain the largest ids and put all other mass into a
tail. Estimates (threshold, sampled) are unbiased for every id. So only a loss that is linear in the teacher's
distribution can be learned from them: the cross-entropy. Class probabilities are exact and complete.
"""

import math
from dataclasses import dataclass
from typing import Literal

from cache.errors import InputError, StoreError
from cache.rows.spec import TargetSpec
from student.losses.registry import OBJECTIVES
from student.losses.settings import LossSettings, TermSettings

# What a tail that is no bucket is for, in words.
VERBS = {"renormalise": "renormalise", "decoupled": "decouple"}
TargetKind = Literal["none", "exact", "estimated", "complete"]


@dataclass(frozen=True, slots=True)
class TargetForm:
    """The form of the target rows of a source.

    kind: "none", texts without targets; "exact", the largest ids with a tail; "estimated", unbiased estimates of the
        whole distribution; "complete", whole distributions over a few classes.
    temperatures: those other than 1 whose log-normalisers the rows have, in the order of their columns.
    entropy: whether the rows have the entropy of the teacher's distribution.
    """

    kind: TargetKind
    temperatures: tuple[float, ...] = ()
    entropy: bool = False

    @classmethod
    def of(cls, targets: TargetSpec) -> "TargetForm":
        """The form of a store's targets."""
        if targets.max_entries == 0:
            return cls("none")
        return cls("estimated" if targets.has_sampled else "exact", targets.temperatures, targets.entropy)


def require_supported(loss: LossSettings, form: TargetForm, source: str) -> None:
    """Raise StoreError, with reason and fix, if a term of the loss is undefined or biased for such targets.

    source: name of the source, for the message.
    """
    for term in loss.all_terms:
        if reason := _reason_against(term, form):
            raise StoreError(f"{source}: {reason}")


def require_reachable(loss: LossSettings, vocab_size: int) -> None:
    """Raise InputError if a term asks for more entropy of the student than any distribution over its ids has."""
    most = math.log(vocab_size)
    for term in loss.all_terms:
        if term.min_student_entropy is not None and term.min_student_entropy >= most:
            raise InputError(
                f"loss.min_student_entropy = {term.min_student_entropy:g}: {vocab_size:,} ids have at most {most:.2f} "
                f"nats, so no token would be learned; give less, such as {most / 4:.1f}"
            )


def _reason_against(term: TermSettings, form: TargetForm) -> str:
    """Why a term cannot be computed from such targets; empty if it can."""
    objective = OBJECTIVES[term.objective]
    if term.perplexity_power and not form.entropy:
        return (
            "has no entropies of the teacher's distributions, which loss.perplexity_power needs; capture with "
            "targets.entropy = true, or leave it out"
        )
    if not objective.needs_teacher:
        return ""
    if form.kind == "none":
        return (
            f"has texts without targets, but {term.objective} needs the teacher's distributions; capture topk, nucleus "
            'or threshold targets, or train with loss.objective = "hard_label"'
        )
    if form.kind == "estimated":
        if not objective.is_linear_in_teacher:
            return (
                f"has unbiased estimates (threshold or sampled targets), but {term.objective} is not linear in the "
                "teacher's distribution and would be biased; use forward_kl, or capture topk or nucleus targets"
            )
        if term.temperature != 1:
            return (
                "has unbiased estimates (threshold or sampled targets), which are biased at a temperature of "
                f"{term.temperature}; use temperature = 1, or capture topk targets with targets.temperatures"
            )
        if term.tail != "bucket":
            verb = VERBS[term.tail]
            return f"has unbiased estimates of the whole distribution, so no tail to {verb}; leave out loss.tail"
    if form.kind == "complete" and term.tail != "bucket":
        return f"has whole distributions over classes, so no tail to {VERBS[term.tail]}; leave out loss.tail"
    needs_normalizer = term.temperature != 1 and term.tail == "bucket"
    if form.kind == "exact" and needs_normalizer and term.temperature not in form.temperatures:
        stored = ", ".join(f"{t:g}" for t in (1.0, *form.temperatures))
        return (
            f"has log-normalisers for the temperatures {stored}, not for {term.temperature:g}, and the largest ids "
            f"alone do not determine them; choose one of these, capture again with targets.temperatures = "
            f'[{term.temperature:g}], or use forward_kl with tail = "decoupled", which needs none'
        )
    return ""
