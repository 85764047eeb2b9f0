"""Settings of a loss: objectives, their weights, and what each segment counts."""

from typing import Literal, Self

from pydantic import Field, model_validator

from cache.settings import Settings

Objective = Literal["forward_kl", "reverse_kl", "jsd", "skewed_kl", "skewed_reverse_kl", "tvd", "hard_label"]


class SegmentWeights(Settings):
    """Weight of a token by the segment it belongs to. Prompts have targets only in stores that were asked for them."""

    prompt: float = Field(0.0, ge=0)
    rationale: float = Field(1.0, ge=0)
    label: float = Field(1.0, ge=0)
    response: float = Field(1.0, ge=0)

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not any(self.by_segment):
            raise ValueError("at least one segment needs a weight above 0")
        return self

    @property
    def by_segment(self) -> tuple[float, float, float, float]:
        """By the number of cache.examples.example.Segment."""
        return (self.prompt, self.rationale, self.label, self.response)


class TermSettings(Settings):
    """One objective of a mix.

    beta: of jsd, the share of the teacher in the mean (0.5 by default); of the skewed divergences, their alpha (0.1).
    temperature: of the stored grid. The gradient carries T^2, so that terms keep their weight at any temperature.
    tail: what is made of the mass outside the stored ids. bucket: one more outcome. renormalise: the stored ids alone,
        as if they were all; biased, for comparison.
    segments: by default those of the whole loss. Each term is a mean over its own tokens.
    """

    objective: Objective
    weight: float = Field(1.0, gt=0)
    temperature: float = Field(1.0, gt=0)
    beta: float | None = Field(None, gt=0, lt=1)
    tail: Literal["bucket", "renormalise"] = "bucket"
    segments: SegmentWeights | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.objective == "hard_label" and (self.temperature != 1 or self.tail != "bucket"):
            raise ValueError("hard_label has neither a temperature nor a tail")
        if self.beta is not None and self.objective not in ("jsd", "skewed_kl", "skewed_reverse_kl"):
            raise ValueError(f"beta belongs to jsd, skewed_kl and skewed_reverse_kl, not to {self.objective}")
        if self.tail == "renormalise" and self.objective != "forward_kl":
            raise ValueError(
                f"{self.objective} with a renormalised teacher is infinite or undefined: it looks at ids that such a "
                'teacher never says; use tail = "bucket"'
            )
        return self

    @property
    def shape(self) -> float:
        """The parameter of the divergence, with its default."""
        return self.beta if self.beta is not None else 0.5 if self.objective == "jsd" else 0.1


class LossSettings(Settings):
    """objective: what is minimised, with hard_label_weight as the share of hard-label cross-entropy in it.

    terms: any mix in place of these. segments: weights of tokens. average: a mean over tokens, or over
    examples, each token weighing 1 / tokens of its example. example_weight: key of metadata that has a weight for each.
    """

    objective: Objective = "forward_kl"
    temperature: float = Field(1.0, gt=0)
    beta: float | None = Field(None, gt=0, lt=1)
    tail: Literal["bucket", "renormalise"] = "bucket"
    hard_label_weight: float = Field(0.0, ge=0, lt=1)
    terms: tuple[TermSettings, ...] = ()
    segments: SegmentWeights = SegmentWeights()
    average: Literal["tokens", "examples"] = "tokens"
    example_weight: str | None = None

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        single = {"objective", "temperature", "beta", "tail", "hard_label_weight"} & self.model_fields_set
        if self.terms and any(getattr(self, name) != type(self).model_fields[name].default for name in single):
            raise ValueError(f"'terms' are the whole mix; leave out {', '.join(sorted(single))}")
        if self.objective == "hard_label" and self.hard_label_weight:
            raise ValueError("hard_label_weight mixes hard labels into another objective; leave it out")
        self.mix  # noqa: B018  refuses what a term refuses
        return self

    @property
    def mix(self) -> tuple[TermSettings, ...]:
        """The terms, however they were given."""
        if self.terms:
            return self.terms
        own = {"temperature": self.temperature, "beta": self.beta, "tail": self.tail}
        first = TermSettings(objective=self.objective, weight=1 - self.hard_label_weight, **own)
        if not self.hard_label_weight:
            return (first,)
        return (first, TermSettings(objective="hard_label", weight=self.hard_label_weight))

    @property
    def needs_teacher(self) -> bool:
        """Whether anything is learned from distributions."""
        return any(term.objective != "hard_label" for term in self.mix)
