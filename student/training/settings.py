"""Settings of a training run. What is not known is refused; what is out of range says so."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from cache.settings import Settings, StoreUri
from student.classes.class_targets import ClassSettings
from student.data.settings import DataSettings
from student.losses.settings import LossSettings
from student.models.settings import ModelSettings
from student.tokenizers.settings import TokenizerSettings


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
