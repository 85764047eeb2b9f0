"""Settings of a training job."""

from pathlib import Path
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from cache.settings import Settings, StoreUri
from student.classification.settings import ClassSettings
from student.data.settings import MAX_TOKENS, DataSettings
from student.losses.registry import OBJECTIVES
from student.losses.settings import LossSettings
from student.models.settings import ModelSettings
from student.tokenizers.settings import TokenizerSettings
from student.training.deepspeed_options import check_offload, check_options
from student.training.run_settings import OptimizerSettings, RunSettings


class HeldoutSettings(Settings):
    """Evaluation while training. The student with the lowest loss on these examples is saved.

    patience: the run stops early after so many evaluations without an improvement; None: it never stops early.
    """

    store: StoreUri | None = Field(None, description="store of held-out examples")
    snapshot: int | None = Field(None, ge=1, description="pinned snapshot; the newest if not given")
    examples: Path | None = Field(None, description="JSON Lines file instead, for hard labels")
    every: int = Field(100, ge=1, description="steps")
    at_start: bool = Field(
        False, description="also before the first step, as a line of step 0; the saved student is one that was trained"
    )
    limit: int = Field(512, ge=1, description="number of examples, from the first on")
    patience: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.store is None) == (self.examples is None):
            raise ValueError("give exactly one of 'store' and 'examples'")
        return self

    def unused_keys(self) -> dict[str, str]:
        return {"snapshot": "only a store has snapshots, and 'examples' is a file"} if self.store is None else {}

    def as_data(self, data: DataSettings) -> DataSettings:
        """The same settings as the training data, with this source."""
        align = "same" if self.store is None else data.align  # a file is tokenised with the student's tokenizer
        source = {"store": self.store, "snapshot": self.snapshot, "examples": self.examples, "align": align}
        return DataSettings.model_validate({**source, "max_tokens": data.max_tokens, "pack_to": data.pack_to})


class SampleSettings(Settings):
    """Texts that the student writes while it learns, into samples.jsonl: greedily, and also at the start and the end.

    Prompts are those of the held-out examples, or of the training examples where a job has no others.
    """

    every: int = Field(100, ge=1, description="steps")
    count: int = Field(4, ge=1, description="different prompts, from the first on")
    examples: Path | None = Field(None, description="JSON Lines file of prompts instead; it needs no responses")
    max_new_tokens: int = Field(64, ge=1, description="tokens of a text at most")


class TrackingSettings(Settings):
    """Where metrics are logged, in addition to metrics.jsonl."""

    tensorboard: bool = Field(True, description="write files for TensorBoard")
    wandb: str | None = Field(None, description="project on Weights & Biases; needs `pip install wandb`")
    mlflow: str | None = Field(
        None, description="experiment of MLflow at MLFLOW_TRACKING_URI; needs `pip install mlflow`"
    )


class TrainSettings(Settings):
    """A training job (`logitbank train`)."""

    output: Path = Field(description="folder of the run")
    mirror: StoreUri | None = Field(
        None,
        description="address or folder that gets a copy of the run: each checkpoint while it goes on, and the student; "
        "where 'output' is lost or on another machine, the run continues from it",
    )
    data: DataSettings = Field(description="where examples come from")
    tokenizer: TokenizerSettings = Field(TokenizerSettings(), description="the student's tokenizer")
    model: ModelSettings = Field(description="the student")
    loss: LossSettings = Field(LossSettings(), description="what is minimised")
    optimizer: OptimizerSettings = Field(description="the optimizer and its schedule")
    run: RunSettings = Field(description="size and speed")
    heldout: HeldoutSettings | None = Field(None, description="evaluation during training; none if not given")
    samples: SampleSettings | None = Field(None, description="texts that the student writes while it learns")
    classes: ClassSettings | None = Field(None, description="the student is a classifier with these classes")
    tracking: TrackingSettings = Field(TrackingSettings(), description="where metrics go")
    deepspeed: dict[str, Any] = Field(
        default_factory=dict,
        description="more keys of DeepSpeed's configuration: of speed, memory, communication and reports",
    )

    @field_validator("deepspeed")
    @classmethod
    def _passed_on(cls, options: dict[str, Any]) -> dict[str, Any]:
        check_options(options)
        return options

    @property
    def packed_rows(self) -> int:
        """Rows of a packed micro-batch; 0 if rows are not packed."""
        return 0 if self.data.pack_to is None else self.run.micro_batch_of(1, self.data.pack_to)

    def with_steps(self, examples: int, tokens: int) -> Self:
        """The same job with a number of steps, for a number of training examples and their tokens."""
        return self.model_copy(update={"run": self.run.with_steps(examples, tokens)})

    @property
    def trusts_code(self) -> bool:
        """Whether code that comes with the tokenizer may run. A pretrained model may bring its tokenizer."""
        return self.tokenizer.trust_remote_code or self.model.trust_remote_code

    def unused_keys(self) -> dict[str, str]:
        unused = {}
        if self.tokenizer.path is None and self.classes is None and self.data.examples is None:
            unused["tokenizer.vocab_size"] = "the student reads the tokens of the store, so no tokenizer is learned"
        reads_files = bool(self.data.examples or self.data.replay) or (
            self.heldout is not None and self.heldout.examples is not None
        )
        if not reads_files and self.data.align == "same":
            unused["tokenizer.chat_template_kwargs"] = "the store contains token ids, so no text is rendered"
        if self.classes is None:
            return unused
        unused |= _unused_with_classes(len(self.loss.terms))
        if self.data.store is None and (self.heldout is None or self.heldout.store is None):
            of_stores = "it is about the rows of a store, and this job reads examples files only"
            unused |= {f"classes.{name}": of_stores for name in ("at", "min_covered", "hard_labels")}
        return unused

    @model_validator(mode="after")
    def _offload_fits(self) -> Self:
        check_offload(self.deepspeed, self.run.offload)
        if self.run.zero_stage == 3 and self.model.lora is not None and self.model.lora.quantise is not None:
            raise ValueError(
                "run.zero_stage = 3 divides weights among ranks, and those in 4 bits (model.lora.quantise) cannot be "
                "divided; use a lower stage"
            )
        if self.optimizer.name == "muon" and self.deepspeed.get("zero_optimization", {}).get("reduce_scatter"):
            raise ValueError(
                "deepspeed.zero_optimization.reduce_scatter: Muon needs the whole gradient of a matrix; leave it out"
            )
        return self

    @model_validator(mode="after")
    def _sequences_can_be_shared(self) -> Self:
        if self.run.sequence_parallel == 1:
            return self
        if self.classes is not None:
            raise ValueError("run.sequence_parallel is for language models, not for [classes]; leave it out")
        if self.packed_rows > 1:
            raise ValueError(
                "run.sequence_parallel keeps packed examples apart in a micro-batch of one row only; set "
                "run.micro_batch_size = 1, with a larger data.pack_to if it fits"
            )
        return self

    @model_validator(mode="after")
    def _attention_fits(self) -> Self:
        attention = self.model.attn_implementation
        if attention is None:
            return self
        if self.classes is not None:
            raise ValueError("model.attn_implementation has no effect for [classes]; leave it out")
        if "flash" in attention and self.run.precision != "bf16":
            raise ValueError(f'model.attn_implementation = "{attention}" needs run.precision = "bf16"')
        if "flash" in attention and self.packed_rows > 1:
            raise ValueError(
                f'model.attn_implementation = "{attention}" keeps packed examples apart in a micro-batch of one row '
                "only; set run.micro_batch_size = 1 or leave it out, with a larger data.pack_to if it fits"
            )
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        is_learned = self.tokenizer.vocab_size and not self.tokenizer.path
        if is_learned and self.model.pretrained and (self.classes is not None or not self.data.stores):
            raise ValueError(
                "tokenizer.vocab_size learns a new tokenizer, whose ids mean nothing to the weights of "
                "model.pretrained; leave it out"
            )
        if self.data.pack_to is None:
            self.run.require_whole_micro_batches()
        elif self.run.micro_batch_tokens is not None:
            raise ValueError(
                "run.micro_batch_tokens has no effect with data.pack_to: rows are packed up to that many tokens; set "
                "run.micro_batch_size, the number of such rows, or leave out both"
            )
        if self.tokenizer.algorithm == "wordpiece" and self.classes is None:
            raise ValueError(
                'tokenizer.algorithm = "wordpiece" cannot write text, which a language model must; leave it out'
            )
        if self.data.examples is not None and self.loss.needs_teacher:
            raise ValueError(
                'an examples file has no teacher distributions; use loss.objective = "hard_label" or data.store'
            )
        has_tokenizer = bool(self.tokenizer.path or self.tokenizer.vocab_size or self.model.pretrained)
        if self.data.examples is not None and not has_tokenizer:
            raise ValueError("an examples file needs tokenizer.path or tokenizer.vocab_size")
        objectives = {term.objective for term in self.loss.all_terms}
        if self.data.replay is not None and all(OBJECTIVES[name].needs_teacher for name in objectives):
            raise ValueError(
                "data.replay has no teacher distributions, so only hard labels learn from it; set "
                'loss.hard_label_weight, or add a term with objective = "hard_label"'
            )
        if self.data.align == "cross_tokenizer" and not (self.tokenizer.path or self.model.pretrained):
            raise ValueError('align = "cross_tokenizer" needs the student\'s tokenizer: set tokenizer.path')
        single = len(self.data.stores) <= 1 and self.data.replay is None
        if self.classes is not None and (not single or self.data.pack_to or self.data.align != "same"):
            raise ValueError(
                "[classes] reads one 'store' or 'examples', without data.pack_to, data.replay and data.align"
            )
        if self.classes is not None and self.data.max_tokens != MAX_TOKENS:
            raise ValueError(
                "data.max_tokens has no effect for [classes]: a classifier reads texts; set classes.max_tokens, at "
                "which longer texts are cut"
            )
        if self.data.follow is not None and (self.classes is not None or self.run.steps is None):
            raise ValueError("data.follow needs run.steps, because a store that grows has no passes, and no [classes]")
        if self.classes is not None and self.samples is not None:
            raise ValueError("[samples] has no use for [classes]: a classifier writes no text; leave it out")
        if self.classes is not None and self.model.lora is not None:
            raise ValueError("model.lora has no use for [classes]: a classifier is trained as a whole; leave it out")
        if self.heldout is not None and self.heldout.examples is not None and self.loss.needs_teacher:
            raise ValueError("heldout.examples has no teacher distributions, which the loss needs; give heldout.store")
        return self


def _unused_with_classes(terms: int) -> dict[str, str]:
    """Keys of the tokens of a response, where the student is a classifier. terms: length of loss.terms."""
    one_row = "a classifier has one row of logits for a whole text"
    unused = {"data.max_tokens": "classes.max_tokens limits the texts of a classifier"}
    unused["tokenizer.chat_template_kwargs"] = "a classifier reads texts without a chat template"
    unused |= dict.fromkeys(("data.order", "data.window_tokens"), "the texts of a classifier are shuffled one by one")
    unused |= dict.fromkeys(("loss.segments", "loss.average"), one_row)
    unused |= {f"loss.terms.{number}.segments": one_row for number in range(terms)}
    unused |= {
        f"loss.terms.{number}.where": "every term of a classifier learns from all texts" for number in range(terms)
    }
    tails = ("loss.tail", *(f"loss.terms.{number}.tail" for number in range(terms)))
    unused |= dict.fromkeys(tails, "the probabilities of classes are whole distributions, without a tail")
    names = ("id2label", "label2id", "num_labels")
    return unused | {f"model.config.{name}": "[classes] has the names of the classes" for name in names}
