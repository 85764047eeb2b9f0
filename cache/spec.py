"""What makes two captures the same content, and the fingerprint of it."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from cache.documents import digest
from cache.errors import SpecMismatchError, StoreError

FORMAT_VERSION = 1
TargetMode = Literal["topk"]


@dataclass(frozen=True, slots=True)
class TargetSpec:
    """How a distribution is made sparse.

    mode: which entries are kept; "topk" keeps the k largest.
    k: greatest number of entries of a row.
    step: log-probabilities are stored in multiples of it (nats).
    """

    mode: TargetMode
    k: int
    step: float


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
class StoreSpec:
    """The identity of a store's content.

    teacher: the name or path it was loaded from; told to people, not part of the fingerprint.
    weights: hash of the teacher's weights and configuration, or the hub revision that fixes them.
    vocab_size: width of the teacher's logits; tokenizer_size: ids that the tokenizer can produce. Ids between the two
        are padding of the model and are never targets of the tokenizer.
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

    @property
    def fingerprint(self) -> str:
        """Hash of everything that determines the content of a store."""
        content = asdict(self)
        del content["teacher"]
        return digest({"format": FORMAT_VERSION, **content})

    def to_document(self) -> dict[str, Any]:
        return {"format": FORMAT_VERSION, "fingerprint": self.fingerprint, "spec": asdict(self)}

    @classmethod
    def from_document(cls, body: dict[str, Any], name: str) -> "StoreSpec":
        if body.get("format") != FORMAT_VERSION:
            raise StoreError(f"{name}: format {body.get('format')!r}; this version reads format {FORMAT_VERSION}")
        values = dict(body["spec"])
        values["targets"] = TargetSpec(**values["targets"])
        if values["sampling"] is not None:
            values["sampling"] = SamplingSpec(**values["sampling"])
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
