"""WeightedObjectives: the terms of a loss, ready for the targets of one source."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from student.losses.registry import OBJECTIVES
from student.losses.settings import LossSettings, TermSettings
from student.losses.target_forms import TargetForm


@dataclass(frozen=True, slots=True)
class WeightedObjectives:
    """The terms of a loss, ready for the targets of one source.

    segment_weights: float32 [terms, segments]. average_examples: average over examples rather than tokens.
    """

    terms: tuple[TermSettings, ...]
    segment_weights: npt.NDArray[np.float32]
    average_examples: bool
    form: TargetForm

    @classmethod
    def of(cls, loss: LossSettings, form: TargetForm) -> "WeightedObjectives":
        """The terms of `loss`, for targets of this form."""
        weights = [loss.segments_of(term).by_segment for term in loss.all_terms]
        return cls(loss.all_terms, np.array(weights, np.float32), loss.average == "examples", form)

    @property
    def needs_teacher(self) -> tuple[bool, ...]:
        """Of each term, whether it compares with the teacher's distribution."""
        return tuple(OBJECTIVES[term.objective].needs_teacher for term in self.terms)

    @property
    def temperatures(self) -> tuple[float, ...]:
        """The temperatures at which the teacher's rows are needed, each once. Empty without a teacher."""
        pairs = zip(self.terms, self.needs_teacher, strict=True)
        return tuple(dict.fromkeys(row_temperature(term) for term, needs_teacher in pairs if needs_teacher))

    @property
    def perplexity_powers(self) -> tuple[float | None, ...]:
        """Of each term, the power of the teacher's perplexity by which a token weighs; None if it has no effect."""
        return tuple(term.perplexity_power or None for term in self.terms)

    @property
    def weighs_prompts(self) -> bool:
        """Whether a term has a weight for the tokens of prompts."""
        return bool((self.segment_weights[:, 0] > 0).any())


def row_temperature(term: TermSettings) -> float:
    """The temperature at which a term needs the teacher's rows.

    Others than those with the tail as a bucket need those at 1: p^(1 / T) on the ids, divided by its sum, is the same
    whatever the normaliser over the vocabulary.
    """
    return term.temperature if term.tail == "bucket" else 1.0
