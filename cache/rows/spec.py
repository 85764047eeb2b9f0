"""The spec: all settings that determine the content of a store, and their fingerprint."""

from dataclasses import asdict, dataclass, field, fields
from math import ceil
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cache.errors import IntegrityError, SpecMismatchError
from cache.json_documents import FORMAT_VERSION, digest, require_fields, require_readable
from cache.rows.level_grid import level_grid
from cache.rows.spec_fields import differences, merged, set_declared_types, unknown_fields

# Fields of a SamplingSpec that are written only if they are not empty: earlier stores do not have them.
OPTIONAL_SAMPLING = ("json_schema",)
# The same for a StoreSpec.
OPTIONAL = ("engine_options", "aligned")

TargetMode = Literal["topk", "nucleus", "threshold", "sampled"]


@dataclass(frozen=True, slots=True)
class TargetSpec:
    """How a distribution is made sparse. Fields that a mode does not use keep their defaults.

    mode: "topk", the k largest; "nucleus", the smallest head that holds `mass`, at most k; "threshold", exact at and
        above the probability `threshold`, sampled below; "sampled", `draws` draws, independent or `systematic`.
    k: maximum number of entries of a row (topk, nucleus); 0 if the teacher gives only text.
    step, tail_step: spacing of stored log-probabilities in nats, near the head and at most (cache/rows/level_grid.py).
    entropy: whether the entropy of each whole distribution is stored. temperatures: those whose log-normalisers are
        stored. Neither is ever estimated: if an engine cannot give it, the spec says that it is absent.
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

    def __post_init__(self) -> None:
        set_declared_types(self)

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
        """Fields for JSON."""
        return {**asdict(self), "temperatures": list(self.temperatures)}

    @property
    def has_exact(self) -> bool:
        """Whether rows have exact entries."""
        return self.mode != "sampled"

    @property
    def has_sampled(self) -> bool:
        """Whether rows have sampled entries."""
        return self.mode in ("threshold", "sampled")

    @property
    def max_entries(self) -> int:
        """Maximum number of entries of a row."""
        if self.mode == "sampled":
            return self.draws
        # Each exact entry has at least the threshold as mass, and systematic draws round the rest of the mass up.
        return ceil(1 / self.threshold) + 1 if self.mode == "threshold" else self.k

    @property
    def grid(self) -> npt.NDArray[np.float32]:
        """Log-probabilities that a stored value can take, float32 [levels]."""
        return level_grid(self.step, self.tail_step, self.max_entries)


@dataclass(frozen=True, slots=True)
class SamplingSpec:
    """How the teacher generates responses, `samples` for each prompt.

    json_schema: JSON schema as canonical JSON that every response follows (guided decoding); "" for none. Rows are
        those of the teacher without the schema.
    """

    samples: int
    temperature: float
    top_p: float
    max_tokens: int
    seed: int
    answer_marker: str
    json_schema: str = ""

    def __post_init__(self) -> None:
        set_declared_types(self)

    def to_document(self) -> dict[str, Any]:
        """Fields for JSON."""
        return {name: value for name, value in asdict(self).items() if value or name not in OPTIONAL_SAMPLING}


@dataclass(frozen=True, slots=True)
class PromptingSpec:
    """How the teacher was prompted for rationales, if not by the example's own prompt.

    template: name of the prompt template. template_digest, hint_digest, shots_digest: SHA-256 of the template, of the
        template that contains the label ("" if none is used), and of the worked examples.
    keep: which responses are stored. stop: text at which a response is cut off.
    context: "same" if records contain the teacher's prompt; "bare" if they contain the example's own, shorter prompt,
        while the rows were computed after the teacher's prompt.
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

    teacher: name or path of the teacher, for people; not part of the fingerprint.
    weights: hash of the teacher's weights and configuration, or the hub revision that determines them.
    vocab_size: width of the teacher's logits. tokenizer_size: number of ids of the tokenizer. Ids between the two are
        padding of the model, and the tokenizer never produces them.
    adapter: hash of the LoRA adapter. quantization: the scheme, if the weights do not include it.
    truncation: how examples that are too long were treated.
    service: what the service returns, if the teacher is an endpoint ("" otherwise).
    asked: whose tokens have targets: "assistant", or "all" if those of the prompt have some too.
    chat_template_kwargs: variables of the chat template beside the messages. template_date: the day, YYYY-MM-DD, that
        the template writes as today; "" if it writes none.
    engine_options: arguments of the engine, by its names, that change what the teacher says.
    aligned: of a store whose rows were moved to the tokens of another tokenizer (`logitbank align`): "from", the
        fingerprint of the store they were captured in, and "has_encoder", whether an encoder reads the prompts.
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
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict, hash=False)
    template_date: str = ""
    engine_options: dict[str, Any] = field(default_factory=dict, hash=False)
    aligned: dict[str, Any] = field(default_factory=dict, hash=False)
    unknown: dict[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        set_declared_types(self)

    @property
    def content(self) -> dict[str, Any]:
        """All fields that determine the content of a store, as they are stored."""
        values = {**asdict(self), "targets": self.targets.to_document()}
        values["sampling"] = self.sampling.to_document() if self.sampling else None
        unknown = values.pop("unknown")
        del values["teacher"]
        values = {name: value for name, value in values.items() if value or name not in OPTIONAL}
        return merged(values, unknown)

    @property
    def fingerprint(self) -> str:
        """Hash of the content."""
        return digest({"format": FORMAT_VERSION, **self.content})

    def to_document(self) -> dict[str, Any]:
        """Content of spec.json."""
        spec = {"teacher": self.teacher, **self.content}
        return {"format": FORMAT_VERSION, "fingerprint": self.fingerprint, "spec": spec}

    @classmethod
    def from_document(cls, body: dict[str, Any], name: str) -> "StoreSpec":
        """The spec that to_document described. Unknown fields are kept.

        Raises IntegrityError, starting with `name`, if a known field is missing, and NewerFormatError if a newer
        version is needed.
        """
        require_readable(body, name)
        require_fields(body, ("fingerprint", "spec"), name)
        values = dict(body["spec"])
        unknown = unknown_fields(values, cls)
        names = [item.name for item in fields(cls) if item.name != "unknown"]
        require_fields(values, [each for each in names if each not in OPTIONAL], f"{name}: spec")
        for part, kind in (("targets", TargetSpec), ("sampling", SamplingSpec), ("prompting", PromptingSpec)):
            if values[part] is not None:
                required = [item.name for item in fields(kind) if item.name not in OPTIONAL_SAMPLING]
                require_fields(values[part], required, f"{name}: spec.{part}")
                if more := unknown_fields(values[part], kind):
                    unknown[part] = more
                values[part] = kind(**{key: each for key, each in values[part].items() if key not in more})
        spec = cls(**{key: values[key] for key in names if key in values}, unknown=unknown)
        if spec.fingerprint != body["fingerprint"]:
            raise IntegrityError(f"{name}: altered: the fingerprint is that of another spec")
        return spec

    def require_same(self, other: "StoreSpec", store: str) -> None:
        """Raise SpecMismatchError, field by field, unless `other` (requested) has this (stored) fingerprint."""
        if self.fingerprint == other.fingerprint:
            return
        changes = "; ".join(differences(self.content, other.content))
        raise SpecMismatchError(
            f"store {store} has another fingerprint ({self.fingerprint[:12]}, requested {other.fingerprint[:12]}); "
            f"{changes}. Give another store path, or the settings with which this store was captured"
        )
