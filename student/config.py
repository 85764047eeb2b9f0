"""Settings of a training run. What is not known is refused; what is out of range says so."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from cache.settings import Settings, StoreUri


class DataSettings(Settings):
    """Where examples come from: a store that a teacher filled, or a JSON Lines file (hard labels only)."""

    store: StoreUri | None = None
    snapshot: int | None = Field(None, ge=1, description="pinned snapshot; the newest if not given")
    origins: tuple[Literal["scored", "generated"], ...] = ("scored", "generated")
    examples: Path | None = None
    max_tokens: int = Field(2048, ge=2, description="longer examples are left out, and counted")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.store is None) == (self.examples is None):
            raise ValueError("give exactly one of 'store' and 'examples'")
        return self


class TokenizerSettings(Settings):
    """The tokenizer: taken from a path (by default the store's teacher), or learned from the examples."""

    path: str | None = None
    vocab_size: int | None = Field(None, ge=300, description="learn a byte-level BPE of this size")


class ModelSettings(Settings):
    """The student: pretrained weights, or a Transformers configuration to start from random ones."""

    pretrained: str | None = None
    config: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.pretrained is None) == (self.config is None):
            raise ValueError("give exactly one of 'pretrained' and 'config'")
        if self.config is not None and "model_type" not in self.config:
            raise ValueError("'config' needs a 'model_type', such as \"llama\"")
        return self


class LossSettings(Settings):
    """objective: what is minimised. hard_label_weight: share of hard-label cross-entropy mixed into forward_kl.

    on_prompt: learn the prompt's tokens too, as in pretraining; hard labels only, since a store has no targets there.
    """

    objective: Literal["forward_kl", "hard_label"] = "forward_kl"
    hard_label_weight: float = Field(0.0, ge=0, le=1)
    on_prompt: bool = False

    @model_validator(mode="after")
    def _prompt_has_no_targets(self) -> Self:
        if self.on_prompt and self.objective != "hard_label":
            raise ValueError('on_prompt needs objective = "hard_label": a store holds no targets for prompts')
        return self


class OptimizerSettings(Settings):
    """AdamW with linear warm-up and cosine decay to a tenth of the peak."""

    lr: float = Field(gt=0)
    warmup_steps: int = Field(20, ge=0)
    weight_decay: float = Field(0.01, ge=0)
    clip: float = Field(1.0, gt=0, description="greatest norm of the gradient")


class RunSettings(Settings):
    """Size and pace of a run. batch_size counts examples over all ranks and accumulated micro-batches."""

    steps: int = Field(ge=1)
    batch_size: int = Field(64, ge=1)
    micro_batch_size: int = Field(32, ge=1)
    ranks: int = Field(2, ge=1)
    zero_stage: Literal[0, 1, 2, 3] = 2
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
        return self

    @property
    def accumulation(self) -> int:
        """Micro-batches of one rank in one step."""
        return self.batch_size // (self.micro_batch_size * self.ranks)


class TrainSettings(Settings):
    """A training job (`logitbank train`)."""

    output: Path
    data: DataSettings
    tokenizer: TokenizerSettings = TokenizerSettings()
    model: ModelSettings
    loss: LossSettings = LossSettings()
    optimizer: OptimizerSettings
    run: RunSettings

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.data.examples is not None and self.loss.objective != "hard_label":
            raise ValueError('an examples file holds no teacher; use loss.objective = "hard_label" or data.store')
        if self.data.examples is not None and not (self.tokenizer.path or self.tokenizer.vocab_size):
            raise ValueError("an examples file needs tokenizer.path or tokenizer.vocab_size")
        return self


class GenerationEvaluation(Settings):
    """Greedy answers to the first `prompts` different prompts."""

    prompts: int = Field(200, ge=1)
    max_new_tokens: int = Field(96, ge=1)
    batch_size: int = Field(100, ge=1)
