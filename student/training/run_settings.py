"""Settings of a run: its optimizer, and its size and speed."""

import math
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from cache.errors import InputError
from cache.settings import Settings
from student.data.settings import StepSize
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

    When a run is continued, ranks, cpu_threads, micro_batch_size, micro_batch_tokens, sequence_parallel,
    checkpoint_every, keep_checkpoints, max_skipped_steps, max_failures and [samples] may change, and steps or epochs
    may be raised, also after its end. The learning rate then follows the schedule of the new length.
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
    sequence_parallel: int = Field(
        1,
        ge=1,
        description="ranks that share the tokens of each example, for long ones (Ulysses, arXiv 2309.14509); ranks is "
        "a multiple of it",
    )
    cpu_threads: int | None = Field(
        None, ge=1, description="of a rank without a GPU; by default all cores for the only rank of a machine, else 1"
    )
    zero_stage: Literal[0, 1, 2, 3] = Field(
        2, description="of DeepSpeed; with bf16 or muon, 0 runs as 1; with both, 2 runs as 1"
    )
    offload: Literal["none", "optimizer", "all"] = Field("none", description="to the CPU; all: parameters too, stage 3")
    precision: Literal["fp32", "tf32", "bf16"] = Field(
        "fp32",
        description="of weights and activations; tf32: float32, but matrix products on a GPU round their factors to 10 "
        "bits of mantissa",
    )
    save_dtype: Literal["fp32", "bf16"] | None = Field(None, description="of the saved student; precision if not given")
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
        if self.ranks is not None and self.ranks % self.sequence_parallel:
            raise ValueError(f"ranks {self.ranks} must be a multiple of sequence_parallel = {self.sequence_parallel}")
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
        total, step = (examples, self.batch_size) if self.batch_size else (tokens, self.batch_tokens or 1)
        return self.model_copy(update={"steps": max(1, math.ceil(self.epochs * total / step)), "epochs": None})

    def require_whole_micro_batches(self) -> None:
        """Raise ValueError unless the batch can be divided among ranks and micro-batches, a row an example."""
        ranks, micro = max((self.ranks or 1) // self.sequence_parallel, 1), self.micro_batch_size or 1
        if not self._divides_evenly(micro * ranks):
            given = {"ranks": self.ranks, "micro_batch_size": self.micro_batch_size}
            names, values = zip(*((name, str(value)) for name, value in given.items() if value), strict=True)
            raise ValueError(
                f"batch_size {self.batch_size} must be a multiple of {' x '.join(names)} = {' x '.join(values)}"
            )

    def fits_ranks(self, ranks: int, pack_to: int | None = None) -> bool:
        """Whether so many ranks can share a batch. Packed rows can be divided in any way."""
        groups, rest = divmod(ranks, self.sequence_parallel)
        if rest or not groups:
            return False
        return pack_to is not None or self._divides_evenly(groups * (self.micro_batch_size or 1))

    def ranks_for(self, gpus: int, pack_to: int | None = None) -> int:
        """The number of ranks on a cluster with so many GPUs: as requested, or as many GPUs as can share the batch."""
        if self.ranks is not None:
            return self.ranks
        most = max(gpus, self.sequence_parallel)
        return next(ranks for ranks in range(most, 0, -1) if self.fits_ranks(ranks, pack_to))

    def micro_batch_of(self, ranks: int, pack_to: int | None = None) -> int:
        """Rows in a micro-batch of one of `ranks`: as requested; otherwise 1 if rows are packed, or the default.

        The default is the largest number up to DEFAULT_MICRO_BATCH that divides a rank's share of the batch.
        Raises InputError if rows are examples and the batch cannot be divided.
        """
        if pack_to is not None:
            return self.micro_batch_size or 1
        if self.batch_size is None:
            return self.micro_batch_size or DEFAULT_MICRO_BATCH
        share, rest = divmod(self.batch_size, max(ranks // self.sequence_parallel, 1))
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
