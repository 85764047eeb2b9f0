"""Settings of a loss: objectives, their weights, and the weights of segments."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from cache.settings import NameOf, Settings
from student.losses.registry import OBJECTIVES

Tail = Literal["bucket", "decoupled", "renormalise"]
# The name of a registered objective.
ObjectiveName = Annotated[str, NameOf(OBJECTIVES)]
PerplexityPower = Annotated[
    float | None,
    Field(
        ge=-4,
        le=4,
        description="a token weighs the teacher's perplexity there to this power: below 0, more where the teacher is "
        "sure; needs a store with targets.entropy = true",
    ),
]
MinStudentEntropy = Annotated[
    float | None,
    Field(
        gt=0,
        description="tokens where the student's own distribution has less entropy than so many nats are left out of a "
        "step; they count 0 in its mean",
    ),
]
# Keys of a loss that `terms` takes the place of.
OF_ONE_TERM = (
    "objective",
    "temperature",
    "beta",
    "tail",
    "hard_label_weight",
    "perplexity_power",
    "min_student_entropy",
)


class SegmentWeights(Settings):
    """Weight of a token by its segment. Only stores captured with targets.of = "all" have targets for prompts."""

    prompt: float = Field(0.0, ge=0, description="tokens of the prompt")
    rationale: float = Field(1.0, ge=0, description="tokens of the rationale")
    label: float = Field(1.0, ge=0, description="tokens of the label")
    response: float = Field(1.0, ge=0, description="other tokens of the response")

    @model_validator(mode="after")
    def _has_a_weight(self) -> Self:
        if not any(self.by_segment):
            raise ValueError("at least one segment needs a weight above 0")
        return self

    @property
    def by_segment(self) -> tuple[float, float, float, float]:
        """The weights in the order of cache.examples.example.Segment."""
        return (self.prompt, self.rationale, self.label, self.response)


def _unused_without_teacher(objective: str) -> dict[str, str]:
    """Keys of an objective that compares with a teacher, where this one does not."""
    if OBJECTIVES[objective].needs_teacher:
        return {}
    return dict.fromkeys(("temperature", "tail"), f"{objective} has no teacher")


class TermSettings(Settings):
    """One objective of several.

    beta: of jsd, the share of the teacher in the mean (0.5 by default); of the skewed
        divergences, their alpha (0.1).
    temperature: one of those the store has log-normalisers for; with tail = "decoupled" or "renormalise" any. The term
        is multiplied by T^2, so its gradient keeps its size at any temperature.
    tail: how the mass outside the stored ids is treated. bucket: as one more outcome. decoupled: as one more outcome,
        at temperature 1, beside the stored ids among themselves, at `temperature`; forward_kl only. renormalise: it is
        left out, and the stored ids are divided by their sum; biased, for comparison.
    segments: by default those of the whole loss. Each term is a mean over its own tokens.
    perplexity_power: a token weighs the teacher's perplexity there (e to the entropy) to this power. Below 0, tokens of
        which the teacher is sure weigh more; above 0, those of which it is not. A token without a target weighs 1.
    min_student_entropy: only tokens of which the student is not sure yet are learned: those where its own distribution,
        at `temperature`, has so many nats of entropy. The others count 0 in the mean: no rank need know of them.
    where: the term learns only from examples whose metadata have these values, such as { task = "explain" }.
    """

    objective: ObjectiveName = Field(description="what this term minimises")
    weight: float = Field(1.0, gt=0, description="of this term")
    temperature: float = Field(1.0, gt=0)
    beta: float | None = Field(None, gt=0, lt=1)
    tail: Tail = "bucket"
    segments: SegmentWeights | None = None
    perplexity_power: PerplexityPower = None
    min_student_entropy: MinStudentEntropy = None
    where: dict[str, Any] = Field({}, description="only examples whose metadata have these values; all if not given")

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        objective = OBJECTIVES[self.objective]
        if not objective.needs_teacher and (self.temperature != 1 or self.tail != "bucket"):
            raise ValueError(f"{objective.name} has neither a temperature nor a tail; leave them out")
        if self.beta is not None and objective.default_parameter is None:
            others = [other.name for other in OBJECTIVES if other.default_parameter is not None]
            raise ValueError(f"beta is a parameter of {', '.join(others)}, not of {objective.name}; leave it out")
        if self.tail == "decoupled" and objective.name != "forward_kl":
            raise ValueError(f'tail = "decoupled" divides forward_kl into two parts, and not {objective.name}')
        if self.tail == "renormalise" and not objective.allows_renormalised:
            raise ValueError(
                f"{objective.name} with a renormalised teacher is infinite or undefined, because the student has mass "
                'on ids where such a teacher has none; use tail = "bucket"'
            )
        return self

    def unused_keys(self) -> dict[str, str]:
        return _unused_without_teacher(self.objective)

    @property
    def parameter(self) -> float | None:
        """The parameter of the objective, with its default; None if it has none."""
        return self.beta if self.beta is not None else OBJECTIVES[self.objective].default_parameter


class LossSettings(Settings):
    """objective: what is minimised, with hard_label_weight as the share of hard-label cross-entropy in it.

    terms: any objectives in place of these. segments: weights of tokens. average: a mean over tokens, or over
    examples, in which each token weighs 1 / tokens of its example. example_weight: key of the metadata that has the
    weight of each example.
    """

    objective: ObjectiveName = "forward_kl"
    temperature: float = Field(
        1.0, gt=0, description='1, or one of targets.temperatures at capture; any with tail = "decoupled"'
    )
    beta: float | None = Field(None, gt=0, lt=1, description="parameter of jsd and of the skewed divergences")
    tail: Tail = Field("bucket", description="how the mass outside the stored ids counts")
    hard_label_weight: float = Field(0.0, ge=0, lt=1, description="share of hard-label cross-entropy")
    perplexity_power: PerplexityPower = None
    min_student_entropy: MinStudentEntropy = None
    terms: tuple[TermSettings, ...] = ()
    segments: SegmentWeights = SegmentWeights()
    average: Literal["tokens", "examples"] = "tokens"
    example_weight: str | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        single = set(OF_ONE_TERM) & self.model_fields_set
        if self.terms and any(getattr(self, name) != type(self).model_fields[name].default for name in single):
            raise ValueError(f"'terms' replaces {', '.join(sorted(single))}; leave them out, or leave out 'terms'")
        if not OBJECTIVES[self.objective].needs_teacher and self.hard_label_weight:
            raise ValueError("hard_label_weight adds hard labels to another objective; leave it out")
        self.all_terms  # noqa: B018  raises what a term raises
        return self

    def unused_keys(self) -> dict[str, str]:
        if not self.terms:
            return _unused_without_teacher(self.objective)
        unused = dict.fromkeys(OF_ONE_TERM, "'terms' takes its place")
        if all(term.segments is not None for term in self.terms):
            unused["segments"] = "every term has segments of its own"
        return unused

    @property
    def all_terms(self) -> tuple[TermSettings, ...]:
        """The terms, whether given as `terms` or as a single objective."""
        if self.terms:
            return self.terms
        own = {"temperature": self.temperature, "beta": self.beta, "tail": self.tail}
        both = {"perplexity_power": self.perplexity_power, "min_student_entropy": self.min_student_entropy}
        first = TermSettings(objective=self.objective, weight=1 - self.hard_label_weight, **own, **both)
        if not self.hard_label_weight:
            return (first,)
        return (first, TermSettings(objective="hard_label", weight=self.hard_label_weight, **both))

    def segments_of(self, term: TermSettings) -> SegmentWeights:
        """The segment weights of a term: its own, or those of the loss."""
        return term.segments or self.segments

    @property
    def needs_teacher(self) -> bool:
        """Whether a term compares with the teacher's distributions."""
        return any(OBJECTIVES[term.objective].needs_teacher for term in self.all_terms)
