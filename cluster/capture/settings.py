"""Settings of a capture job."""

from typing import Annotated, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from cache.examples.files.jsonl import KEYS
from cache.examples.files.line_forms import FORM_KEYS
from cache.settings import InputUri, OneOf, Settings, StoreUri
from teacher_serving.asking.settings import GenerationSettings
from teacher_serving.engines.registry import ENGINES
from teacher_serving.engines.settings import EngineSettings, TeacherSettings
from teacher_serving.reduction.settings import TargetSettings


class ActorRange(Settings):
    """Engines of a capture on a cluster that grows and shrinks."""

    min: int = Field(1, ge=1, description="engines with which the capture begins")
    max: int = Field(ge=1, description="engines at most: the others join while it runs, when the cluster has room")

    @model_validator(mode="after")
    def _is_range(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"'min' is {self.min}, which is more than 'max', {self.max}")
        return self


class CaptureSettings(Settings):
    """A job that fills a store (`logitbank capture`)."""

    examples: InputUri = Field(
        description="file of examples (JSON Lines, Parquet), folder or pattern of them, or an address of one"
    )
    fields: dict[str, str] = Field(
        {}, description='by a key of examples the name in the file, as in { prompt = "question", response = "answer" }'
    )
    store: StoreUri = Field(description="store to fill; created if absent")
    limit: int | None = Field(None, ge=1, description="use only this many examples, from the first on")
    score: bool = Field(True, description="score the responses that the examples contain")
    teacher: TeacherSettings = Field(description="the model")
    engine: Annotated[EngineSettings, OneOf(ENGINES, key="kind", default="vllm")] = Field(
        default_factory=lambda: ENGINES["vllm"].settings.model_validate({}), description="how the teacher runs"
    )
    targets: TargetSettings = Field(TargetSettings(), description="what is stored of each distribution")
    generation: GenerationSettings | None = Field(
        None, description="responses that the teacher generates; none if not given"
    )
    unit_size: int = Field(256, ge=1, description="examples captured and committed together")
    unit_tokens: int = Field(
        1 << 18, ge=1, description="a unit ends earlier when the prompts and texts of its examples have so many tokens"
    )
    actors: PositiveInt | ActorRange = Field(
        1, description="engines that work at the same time: their number, or { min, max }"
    )
    address: str | None = Field(None, description="Ray head to join; an embedded Ray if not given")

    def unused_keys(self) -> dict[str, str]:
        unused = self.engine.unused_keys_of_job()
        if self.targets.named_mode is None:
            keys = self.targets.unused_in(self.engine.default_mode)
            unused |= {f"targets.{key}": reason for key, reason in keys.items()} | unused
        if not self.score:
            unused["targets.of"] = "only scored responses have rows for prompts, and score = false"
        return unused

    @property
    def fewest_actors(self) -> int:
        """Engines with which the capture begins."""
        return self.actors if isinstance(self.actors, int) else self.actors.min

    @property
    def most_actors(self) -> int:
        """Engines at most."""
        return self.actors if isinstance(self.actors, int) else self.actors.max

    @field_validator("fields")
    @classmethod
    def _check_fields(cls, fields: dict[str, str]) -> dict[str, str]:
        if unknown := sorted(set(fields) - KEYS - FORM_KEYS):
            raise ValueError(f"{unknown[0]!r} is no key of examples; known keys: {', '.join(sorted(KEYS | FORM_KEYS))}")
        return fields

    @model_validator(mode="after")
    def _check_actors(self) -> Self:
        self.engine.check_actors(self.most_actors)
        return self
