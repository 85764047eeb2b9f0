"""Settings of a training job."""

import math
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from cache.errors import InputError
from cache.settings import Settings, StoreUri
from student.classification.settings import ClassSettings
from student.data.settings import MAX_TOKENS, DataSettings, StepSize
from student.losses.registry import OBJECTIVES
from student.losses.settings import LossSettings
from student.models.settings import ModelSettings
from student.tokenizers.settings import TokenizerSettings
from student.training.deepspeed_options import check_offload, check_options
from student.training.steps.micro_batches import MicroBatchLimit

DEFAULT_BATCH, DEFAULT_MICRO_BATCH = 64, 32


class OptimizerSettings(Settings):
    """An optimizer by name, with linear warm-up and a decay to final_lr_share of the peak rate at the last step.

    adamw_8bit keeps both moments in 8 bits: 2 bytes a parameter in the place of 8. muon updates hidden matrices, each
    by the nearest orthogonal matrix of its momentum (lr of about 0.02), and the rest by AdamW with adam_lr.
    """

    name: Literal["adamw", "adamw_8bit", "muon"] = Field("adamw", description="the optimizer")
    lr: float = Field(gt=0, description="peak learning rate")
    adam_lr: float | None = Field(
        None, gt=0, description="peak learning rate of embeddings, head, norms and biases; muon needs it"
    )
    momentum: float = Field(0.95, ge=0, lt=1, description="of Muon")
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="decay after the warm-up")
    warmup_steps: int = Field(20, ge=0, description="steps of linear warm-up")
    final_lr_share: float = Field(0.1, ge=0, le=1, description="share of the peak rate at the last step")
    betas: tuple[float, float] = Field((0.9, 0.95), description="of AdamW")
    weight_decay: float = Field(0.01, ge=0, description="of matrices and embeddings")
    clip: float = Field(1.0, gt=0, description="maximum norm of the gradient; not with muon, whose updates have one")

    @model_validator(mode="after")
    def _has_both_rates(self) -> Self:
        if (self.name == "muon") != (self.adam_lr is not None):
            raise ValueError(
                'name = "muon" needs adam_lr, the rate of embeddings, head, norms and biases'
                if self.name == "muon"
                else f'adam_lr is for name = "muon"; the rate of {self.name} is lr'
            )
        return self

    def unused_keys(self) -> dict[str, str]:
        unused = {"final_lr_share": 'schedule = "constant" has no decay'} if self.schedule == "constant" else {}
        if self.name == "muon":
            return unused | {"clip": "an update of Muon has the same norm whatever the gradient has"}
        return unused | {"momentum": 'it is for name = "muon"'}


class RunSettings(Settings):
    """Size and speed of a run. Give steps or epochs. The size of a step counts over all ranks and micro-batches.

    A step has batch_size examples, or batch_tokens tokens: it then ends with the example that reaches that number, and
    what this example has too much is missing in the next step. So all steps of a run have batch_tokens tokens on
    average, each to within one example.

    A micro-batch is what one rank computes at a time. It consists of rows. With data.pack_to, a row is as many examples
    as fit into that many tokens; otherwise it is one example, padded to the longest of its micro-batch. Then batch_size
    must be a multiple of ranks x micro_batch_size; batch_tokens and micro_batch_tokens need no such rule.

    When a run is continued, ranks, cpu_threads, micro_batch_size, micro_batch_tokens, checkpoint_every,
    keep_checkpoints, max_skipped_steps and max_failures may change, and steps or epochs may be raised, also after its
    end. The learning rate then follows the schedule of the new length.
    """

    steps: int | None = Field(None, ge=1, description="optimizer steps; give these or epochs")
    epochs: float | None = Field(None, gt=0, description="passes over the training examples")
    batch_size: int | None = Field(
        None,
        ge=1,
        description=f"examples of a step, over all ranks and micro-batches; {DEFAULT_BATCH} without batch_tokens",
    )
    batch_tokens: int | None = Field(
        None, ge=1, description="tokens of a step, in the place of batch_size; prompts count, padding does not"
    )
    micro_batch_size: int | None = Field(
        None,
        ge=1,
        description=f"rows of a micro-batch; by default 1 with data.pack_to, otherwise at most {DEFAULT_MICRO_BATCH}",
    )
    micro_batch_tokens: int | None = Field(
        None,
        ge=1,
        description="positions of a micro-batch with its padding, in the place of micro_batch_size: as many rows as "
        "the longest of them allows, and at least one; an encoder-decoder pads both sides, and may have up to twice as "
        "many; not with data.pack_to, whose rows have a size already",
    )
    ranks: int | None = Field(None, ge=1, description="processes; by default one for each GPU, or 1 without a GPU")
    cpu_threads: int | None = Field(
        None, ge=1, description="of a rank without a GPU; by default all cores for the only rank of a machine, else 1"
    )
    zero_stage: Literal[0, 1, 2, 3] = Field(
        2, description="of DeepSpeed; with bf16 or muon, 0 runs as 1; with both, 2 runs as 1"
    )
    offload: Literal["none", "optimizer", "all"] = Field("none", description="to the CPU; all: parameters too, stage 3")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="of weights and activations")
    seed: int = Field(0, ge=0, description="of initial weights and order")
    checkpoint_every: int = Field(100, ge=1, description="steps")
    keep_checkpoints: int = Field(2, ge=1, description="newest checkpoints that are kept")
    max_skipped_steps: int = Field(
        5, ge=1, description="the run ends after so many steps in a row whose gradient is not finite"
    )
    max_failures: int = Field(3, ge=0, description="restarts after a lost worker")

    @model_validator(mode="before")
    @classmethod
    def _default_batch(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("batch_size") is None and values.get("batch_tokens") is None:
            return {**values, "batch_size": DEFAULT_BATCH}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give exactly one of 'steps' and 'epochs'")
        for one, other in (("batch_size", "batch_tokens"), ("micro_batch_size", "micro_batch_tokens")):
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise ValueError(f"give {one!r} or {other!r}, not both")
        if self.offload != "none" and self.zero_stage < (3 if self.offload == "all" else 1):
            raise ValueError(f"offload = {self.offload!r} needs zero_stage {3 if self.offload == 'all' else '1 to 3'}")
        return self

    @property
    def total_steps(self) -> int:
        """Steps of the whole run. Call `with_steps` first."""
        if self.steps is None:
            raise RuntimeError("the number of steps is not known before the job is planned")
        return self.steps

    @property
    def step_size(self) -> StepSize:
        """What a step has: examples or tokens."""
        return StepSize(self.batch_size, self.batch_tokens)

    def with_steps(self, examples: int, tokens: int) -> Self:
        """The same settings with `steps` in place of `epochs`, for a number of training examples and their tokens."""
        if self.epochs is None:
            return self
        steps = (
            math.ceil(self.epochs * examples / self.batch_size)
            if self.batch_size
            else (math.ceil(self.epochs * tokens / (self.batch_tokens or 1)))
        )
        return self.model_copy(update={"steps": max(steps, 1), "epochs": None})

    def require_whole_micro_batches(self) -> None:
        """Raise ValueError unless the batch can be divided among ranks and micro-batches, a row an example."""
        ranks, micro = self.ranks or 1, self.micro_batch_size or 1
        if not self._divides_evenly(micro * ranks):
            given = {"ranks": self.ranks, "micro_batch_size": self.micro_batch_size}
            names, values = zip(*((name, str(value)) for name, value in given.items() if value), strict=True)
            raise ValueError(
                f"batch_size {self.batch_size} must be a multiple of {' x '.join(names)} = {' x '.join(values)}"
            )

    def fits_ranks(self, ranks: int, pack_to: int | None = None) -> bool:
        """Whether so many ranks can share a batch. Packed rows can be divided in any way."""
        return pack_to is not None or self._divides_evenly(ranks * (self.micro_batch_size or 1))

    def ranks_for(self, gpus: int, pack_to: int | None = None) -> int:
        """The number of ranks on a cluster with so many GPUs: as requested, or as many GPUs as can share the batch."""
        if self.ranks is not None:
            return self.ranks
        return next(ranks for ranks in range(max(gpus, 1), 0, -1) if self.fits_ranks(ranks, pack_to))

    def micro_batch_of(self, ranks: int, pack_to: int | None = None) -> int:
        """Rows in a micro-batch of one of `ranks`: as requested; otherwise 1 if rows are packed, or the default.

        The default is the largest number up to DEFAULT_MICRO_BATCH that divides a rank's share of the batch.
        Raises InputError if rows are examples and the batch cannot be divided.
        """
        if pack_to is not None:
            return self.micro_batch_size or 1
        if self.batch_size is None:
            return self.micro_batch_size or DEFAULT_MICRO_BATCH
        share, rest = divmod(self.batch_size, ranks)
        if rest or (self.micro_batch_size is not None and share % self.micro_batch_size):
            raise InputError(
                f"run.batch_size {self.batch_size} cannot be divided among {ranks} ranks with micro-batches of "
                f"{self.micro_batch_size or 1}; choose a multiple"
            )
        if self.micro_batch_size is not None:
            return self.micro_batch_size
        return next(size for size in range(min(share, DEFAULT_MICRO_BATCH), 0, -1) if share % size == 0)

    def micro_batch_limit(self, ranks: int, pack_to: int | None = None) -> MicroBatchLimit:
        """What bounds a micro-batch of one of `ranks`: positions or rows. Raises InputError as micro_batch_of does."""
        if self.micro_batch_tokens is not None:
            return MicroBatchLimit(None, self.micro_batch_tokens)
        return MicroBatchLimit(self.micro_batch_of(ranks, pack_to), None)

    def _divides_evenly(self, parts: int) -> bool:
        """Whether a step can be divided into micro-batches of equally many rows, or need not be."""
        return self.batch_size is None or self.micro_batch_tokens is not None or self.batch_size % parts == 0


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
        if self.optimizer.name == "muon" and self.deepspeed.get("zero_optimization", {}).get("reduce_scatter"):
            raise ValueError(
                "deepspeed.zero_optimization.reduce_scatter: Muon needs the whole gradient of a matrix; leave it out"
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
