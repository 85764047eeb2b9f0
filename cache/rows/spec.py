"""What makes two captures the same content, and the fingerprint of it."""

from dataclasses import MISSING, asdict, dataclass, fields
from math import ceil
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cache.documents import digest
from cache.errors import SpecMismatchError, StoreError
from cache.rows.level_grid import level_grid

FORMAT_VERSION = 1
TargetMode = Literal["topk", "nucleus", "threshold", "sampled"]


@dataclass(frozen=True, slots=True)
class TargetSpec:
    """How a distribution is made sparse. What a mode does not use keeps its default.

    mode: "topk", the k largest; "nucleus", the smallest head that holds `mass`, at most k; "threshold", exact at and
        above the probability `threshold` and sampled below it; "sampled", `draws` draws, independent or `systematic`.
    k: greatest number of entries of a row (topk, nucleus); 0 where the teacher gave text alone.
    step, tail_step: spacing in nats of stored log-probabilities, near the head and at most (cache/grid.py).
    entropy: the entropy of each whole distribution is stored. temperatures: those whose log-normalisers are.
        Neither is ever guessed: what an engine cannot give is declared absent here.
    """

    mode: TargetMode = "topk"
    k: int = 0
    step: float = 0.04
    tail_step: float = 0.2
    mass: float = 0.0
    threshold: float = 0.0
    draws: int = 0
    systematic: bool = False
    entropy: bool = False
    temperatures: tuple[float, ...] = ()

    def __str__(self) -> str:
        size = {
            "topk": f"k = {self.k}",
            "nucleus": f"mass {self.mass}, k = {self.k}",
            "threshold": f"probability {self.threshold}",
            "sampled": f"{self.draws} {'systematic ' if self.systematic else ''}draws",
        }[self.mode]
        extra = [", entropy"] if self.entropy else []
        extra += [f", log-normalisers at {', '.join(map(str, self.temperatures))}"] if self.temperatures else []
        return f"{self.mode}, {size}, steps of {self.step} to {self.tail_step} nats{''.join(extra)}"

    def to_document(self) -> dict[str, Any]:
        """Fields for JSON; one that came later is left out at its default, so that older stores stay what they are."""
        return {name: value for name, value in asdict(self).items() if value or name != "systematic"}

    @property
    def has_exact(self) -> bool:
        """Whether rows have entries with a value of their own."""
        return self.mode != "sampled"

    @property
    def has_sampled(self) -> bool:
        """Whether rows have entries that stand for a draw."""
        return self.mode in ("threshold", "sampled")

    @property
    def most_entries(self) -> int:
        """Greatest number of entries of a row."""
        if self.mode == "sampled":
            return self.draws
        # Exact entries fill the mass in steps of at least the threshold, and a systematic draw rounds the rest up.
        return ceil(1 / self.threshold) + 1 if self.mode == "threshold" else self.k

    @property
    def grid(self) -> npt.NDArray[np.float32]:
        """Log-probabilities that a stored value can take, float32 [levels]."""
        return level_grid(self.step, self.tail_step, self.most_entries)


@dataclass(frozen=True, slots=True)
class SamplingSpec:
    """How the teacher writes its own responses. `samples` responses for each prompt."""

    samples: int
    temperature: float
    top_p: float
    max_tokens: int
    seed: int
    answer_marker: str


@dataclass(frozen=True, slots=True)
class PromptingSpec:
    """How a teacher was asked to write rationales, where not by the example's own prompt.

    template: its name; template_digest, hint_digest, shots_digest: SHA-256 of the template, of the one that tells the
        label ("" where none is used), and of the worked examples.
    keep: which responses are kept. stop: text that begins what is cut off. context: "bare" where a record holds the
        example's own prompt and the rows are those of the teacher's longer one, "same" where it holds that one.
    """

    template: str
    template_digest: str
    shots_digest: str
    hint_digest: str
    keep: str
    stop: str
    context: str

    def __str__(self) -> str:
        shots = " with examples" if self.shots_digest else ""
        return f"{self.template or 'the prompt alone'}{shots}, keeping {self.keep}, context {self.context}"


@dataclass(frozen=True, slots=True)
class StoreSpec:
    """The identity of a store's content.

    teacher: the name or path it was loaded from; told to people, not part of the fingerprint.
    weights: hash of the teacher's weights and configuration, or the hub revision that fixes them.
    vocab_size: width of the teacher's logits; tokenizer_size: ids that the tokenizer can produce. Ids between the two
        are padding of the model and are never targets of the tokenizer.
    adapter: hash of the LoRA adapter. quantization: the scheme, where the weights do not say.
    truncation: what became of examples that were too long.
    service: what an endpoint gives, where the teacher is one ("" otherwise).
    asked: "assistant", or "all" where the rows of the prompt are targets too.
    """

    teacher: str
    weights: str
    tokenizer: str
    chat_template: str
    vocab_size: int
    tokenizer_size: int
    dtype: str
    targets: TargetSpec
    sampling: SamplingSpec | None
    adapter: str = ""
    quantization: str = ""
    truncation: str = "refuse"
    service: str = ""
    asked: str = "assistant"
    prompting: PromptingSpec | None = None

    @property
    def content(self) -> dict[str, Any]:
        """Everything that determines the content of a store; fields at their defaults, which came later, left out."""
        values = asdict(self)
        values["targets"] = self.targets.to_document()
        return {
            field.name: values[field.name]
            for field in fields(self)
            if field.name != "teacher" and (field.default is MISSING or values[field.name] != field.default)
        }

    @property
    def fingerprint(self) -> str:
        """Hash of the content."""
        return digest({"format": FORMAT_VERSION, **self.content})

    def to_document(self) -> dict[str, Any]:
        spec = {"teacher": self.teacher, **self.content}
        return {"format": FORMAT_VERSION, "fingerprint": self.fingerprint, "spec": spec}

    @classmethod
    def from_document(cls, body: dict[str, Any], name: str) -> "StoreSpec":
        if body.get("format") != FORMAT_VERSION:
            raise StoreError(f"{name}: format {body.get('format')!r}; this version reads format {FORMAT_VERSION}")
        values = dict(body["spec"])
        targets = values["targets"]
        values["targets"] = TargetSpec(**{**targets, "temperatures": tuple(targets["temperatures"])})
        if values["sampling"] is not None:
            values["sampling"] = SamplingSpec(**values["sampling"])
        if values.get("prompting"):
            values["prompting"] = PromptingSpec(**values["prompting"])
        return cls(**values)

    def require_same(self, other: "StoreSpec", store: str) -> None:
        """Raise SpecMismatchError, field by field, unless `other` (wanted) has this (stored) fingerprint."""
        if self.fingerprint == other.fingerprint:
            return
        rows = [
            f"{field.name}: stored {getattr(self, field.name)!r}, wanted {getattr(other, field.name)!r}"
            for field in fields(self)
            if field.name != "teacher" and getattr(self, field.name) != getattr(other, field.name)
        ]
        raise SpecMismatchError(
            f"store {store} has another fingerprint ({self.fingerprint[:12]}, wanted {other.fingerprint[:12]}); "
            f"{'; '.join(rows)}. Give another store path, or the settings that this one was made with"
        )
