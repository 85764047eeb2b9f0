"""Settings that all teachers and engines have in common. Each engine defines its own settings in its folder."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field

from cache.rendering.prompt_form import parse_date
from cache.rows.spec import TargetMode
from cache.settings import ModelPath, Settings
from teacher_serving.reduction.settings import OF_WHOLE_DISTRIBUTIONS


def _check_date(text: str) -> str:
    parse_date(text)
    return text


class TeacherSettings(Settings):
    """The model, and how it reads an example. These settings determine the content of a capture."""

    model: ModelPath = Field(description="model folder or hub name; for an endpoint, the name that the service uses")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description='number format of the weights; "auto" takes the one in the model\'s configuration'
    )
    max_tokens: int = Field(2048, ge=2, description="maximum tokens of an example; longer ones go to quarantine")
    truncation: Literal["refuse", "left", "right"] = Field(
        "refuse",
        description="what happens to longer examples: quarantine, or remove their first (left) or last (right) tokens",
    )
    lora_path: ModelPath | None = Field(None, description="folder of a LoRA adapter of the model")
    quantization: str | None = Field(
        None, description="vLLM's name of a quantisation scheme, if the model's files do not name one"
    )
    chat_template_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="variables of the chat template, such as { enable_thinking = false }"
    )
    template_date: Annotated[str, AfterValidator(_check_date)] | None = Field(
        None,
        description="day, YYYY-MM-DD, that a chat template writes as today; by default the day on which the store was "
        "begun",
    )
    trust_remote_code: bool = Field(False, description="run Python code that the model's folder contains")
    tokenizer: ModelPath | None = Field(
        None, description="endpoint only: folder or hub name of the tokenizer that turns the service's text into ids"
    )


class EngineSettings(Settings):
    """How a teacher runs. These settings change the speed, not the content, except for random draws of responses.

    The base of the settings of every engine. A subclass sets `kind` to the name of its engine.
    """

    # Keys of [teacher] that this engine does not read, each with the reason.
    unused_teacher_keys: ClassVar[Mapping[str, str]] = {"tokenizer": "a model has a tokenizer of its own"}

    kind: str = Field(description="name of the engine")
    cpu_threads: int | None = Field(
        None,
        ge=1,
        description="threads of one engine on a machine without a GPU; by default its share of the cores of this "
        "machine, and 1 on a cluster",
    )

    @property
    def threads(self) -> int:
        """Threads of one engine where nobody has divided the cores."""
        return self.cpu_threads or 1

    def with_threads(self, threads: int) -> Self:
        """The settings with so many threads, unless they name a number."""
        return self.model_copy(update={"cpu_threads": self.cpu_threads or threads})

    @property
    def gpus(self) -> int:
        """GPUs of one engine, in a cluster that has any."""
        return 1

    @property
    def default_mode(self) -> TargetMode:
        """The mode of targets of a job that names none."""
        return OF_WHOLE_DISTRIBUTIONS

    def unused_keys_of_job(self) -> dict[str, str]:
        """Keys of a whole capture job that have no effect with this engine, each with the reason."""
        return {f"teacher.{name}": reason for name, reason in self.unused_teacher_keys.items()}

    def check_actors(self, actors: int) -> None:
        """Raise ValueError if this many engines cannot work on one job at the same time."""
