"""Settings of a training run. What is not known is refused; what is out of range says so."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from cache.settings import Settings, StoreUri
from student.class_targets import ClassSettings

Objective = Literal["forward_kl", "reverse_kl", "jsd", "skewed_kl", "skewed_reverse_kl", "tvd", "hard_label"]


class WeightedStore(Settings):
    """A store with its share: of the examples of a mixture, or of the average of several teachers."""

    store: StoreUri
    snapshot: int | None = Field(None, ge=1, description="pinned snapshot; the newest if not given")
    weight: float = Field(1.0, gt=0)


class DataSettings(Settings):
    """Where examples come from: exactly one of the first four.

    store: what a teacher left. mixture: several stores, drawn from by weight. teachers: several stores of the same
    scored examples, whose distributions are averaged by weight. examples: a JSON Lines file (hard labels only).
    """

    store: StoreUri | None = None
    mixture: tuple[WeightedStore, ...] = ()
    teachers: tuple[WeightedStore, ...] = ()
    examples: Path | None = None
    snapshot: int | None = Field(None, ge=1, description="pinned snapshot of 'store'; the newest if not given")
    origins: tuple[Literal["scored", "generated"], ...] = ("scored", "generated")
    max_tokens: int = Field(2048, ge=2, description="longer examples are left out, and counted")
    align: Literal["same", "cross_tokenizer"] = Field(
        "same", description="cross_tokenizer: map the targets onto the tokens of a student with a tokenizer of its own"
    )
    pack_to: int | None = Field(None, ge=2, description="put several examples into rows of this many tokens")
    prefetch: int = Field(4, ge=1, description="steps that are read and decoded ahead")
    readers: int = Field(1, ge=1, description="threads a rank that read and decode")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        sources = {"store": self.store, "mixture": self.mixture, "teachers": self.teachers, "examples": self.examples}
        given = [name for name, value in sources.items() if value]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of 'store', 'mixture', 'teachers' and 'examples', not {given or 'none'}"
            )
        if len(self.teachers) == 1:
            raise ValueError("'teachers' averages several stores; give one as 'store'")
        if self.snapshot is not None and self.store is None:
            raise ValueError("'snapshot' belongs to 'store'; the stores of a list have their own")
        if self.align == "cross_tokenizer" and self.store is None:
            raise ValueError("align = \"cross_tokenizer\" reads one 'store'")
        return self

    @property
    def stores(self) -> tuple[WeightedStore, ...]:
        """Every store that is read, in order."""
        one = () if self.store is None else (WeightedStore(store=self.store, snapshot=self.snapshot),)
        return one or self.mixture or self.teachers


class TokenizerSettings(Settings):
    """The tokenizer: taken from a path (by default the store's teacher), or learned from the examples."""

    path: str | None = None
    vocab_size: int | None = Field(None, ge=300, description="learn a byte-level BPE of this size")


class LoraSettings(Settings):
    """Low-rank adapters (PEFT) in place of full fine-tuning; they are merged when the student is saved."""

    rank: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    target_modules: str | tuple[str, ...] = Field("all-linear", description="names of modules, or all-linear")


class ModelSettings(Settings):
    """The student: pretrained weights, or a Transformers configuration to start from random ones.

    A configuration of model_type "logitbank_compact" is a small classifier, and needs [classes].
    """

    pretrained: str | None = None
    config: dict[str, Any] | None = None
    lora: LoraSettings | None = None
    gradient_checkpointing: bool = Field(False, description="compute activations again in the backward pass")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.pretrained is None) == (self.config is None):
            raise ValueError("give exactly one of 'pretrained' and 'config'")
        if self.config is not None and "model_type" not in self.config:
            raise ValueError("'config' needs a 'model_type', such as \"llama\"")
        if self.lora is not None and self.pretrained is None:
            raise ValueError("'lora' adapts pretrained weights; give 'pretrained'")
        return self


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
        """By the number of cache.example.Segment."""
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


class OptimizerSettings(Settings):
    """AdamW with linear warm-up and a decay to final_lr_share of the peak rate at the last step."""

    lr: float = Field(gt=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_steps: int = Field(20, ge=0)
    final_lr_share: float = Field(0.1, ge=0, le=1)
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(0.01, ge=0)
    clip: float = Field(1.0, gt=0, description="greatest norm of the gradient")


class RunSettings(Settings):
    """Size and pace of a run. batch_size counts examples over all ranks and accumulated micro-batches.

    ranks, micro_batch_size and what follows from them may change when a run is continued; batch_size stays.
    """

    steps: int = Field(ge=1)
    batch_size: int = Field(64, ge=1)
    micro_batch_size: int = Field(32, ge=1)
    ranks: int = Field(2, ge=1)
    zero_stage: Literal[0, 1, 2, 3] = 2
    offload: Literal["none", "optimizer", "all"] = Field("none", description="to the CPU; all: parameters too, stage 3")
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = Field(0, ge=0)
    checkpoint_every: int = Field(100, ge=1, description="steps")
    max_failures: int = Field(3, ge=0, description="restarts after a lost worker")

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.batch_size % (self.micro_batch_size * self.ranks):
            raise ValueError(
                f"batch_size {self.batch_size} must be a multiple of "
                f"ranks x micro_batch_size = {self.ranks} x {self.micro_batch_size}"
            )
        if self.offload != "none" and self.zero_stage < (3 if self.offload == "all" else 1):
            raise ValueError(f"offload = {self.offload!r} needs zero_stage {3 if self.offload == 'all' else '1 to 3'}")
        return self

    @property
    def accumulation(self) -> int:
        """Micro-batches of one rank in one step."""
        return self.batch_size // (self.micro_batch_size * self.ranks)


class HeldoutSettings(Settings):
    """Evaluation while training: the student that is kept is the one with the least loss on these examples.

    patience: evaluations without a better one after which the run stops early; None never stops.
    """

    store: StoreUri | None = None
    snapshot: int | None = Field(None, ge=1)
    examples: Path | None = None
    every: int = Field(100, ge=1, description="steps")
    limit: int = Field(512, ge=1, description="only the first so many examples")
    patience: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.store is None) == (self.examples is None):
            raise ValueError("give exactly one of 'store' and 'examples'")
        return self

    def as_data(self, data: DataSettings) -> DataSettings:
        """What is read, in the way that the training examples are."""
        own = {"store": self.store, "snapshot": self.snapshot, "examples": self.examples, "align": data.align}
        return DataSettings.model_validate({**own, "max_tokens": data.max_tokens, "pack_to": data.pack_to})


class TrackingSettings(Settings):
    """Where metrics go beside metrics.jsonl and TensorBoard, which always get them."""

    wandb: str | None = Field(None, description="project on Weights & Biases; needs `pip install wandb`")


class TrainSettings(Settings):
    """A training job (`logitbank train`)."""

    output: Path
    data: DataSettings
    tokenizer: TokenizerSettings = TokenizerSettings()
    model: ModelSettings
    loss: LossSettings = LossSettings()
    optimizer: OptimizerSettings
    run: RunSettings
    heldout: HeldoutSettings | None = None
    classes: ClassSettings | None = Field(None, description="the student is a classifier of these")
    tracking: TrackingSettings = TrackingSettings()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.data.examples is not None and self.loss.needs_teacher:
            raise ValueError('an examples file holds no teacher; use loss.objective = "hard_label" or data.store')
        own_tokenizer = bool(self.tokenizer.path or self.tokenizer.vocab_size or self.model.pretrained)
        if self.data.examples is not None and not own_tokenizer:
            raise ValueError("an examples file needs tokenizer.path or tokenizer.vocab_size")
        if self.data.align == "cross_tokenizer" and not (self.tokenizer.path or self.model.pretrained):
            raise ValueError('align = "cross_tokenizer" needs the student\'s tokenizer: set tokenizer.path')
        if self.classes is not None and (len(self.data.stores) > 1 or self.data.pack_to or self.data.align != "same"):
            raise ValueError("[classes] reads one 'store' or 'examples', without data.pack_to and data.align")
        if self.heldout is not None and self.heldout.examples is not None and self.loss.needs_teacher:
            raise ValueError("heldout.examples holds no teacher, which the loss needs; give heldout.store")
        return self


class GenerationEvaluation(Settings):
    """Greedy answers to the first `prompts` different prompts. vllm: faster where answers are many or long."""

    engine: Literal["transformers", "vllm"] = "transformers"

    prompts: int = Field(200, ge=1)
    max_new_tokens: int = Field(96, ge=1)
    batch_size: int = Field(100, ge=1)
