"""Settings of a teacher and of what it is asked. Those that change content are told apart from those for speed."""

from typing import Literal, Self

from pydantic import Field, model_validator

from cache.settings import Settings
from cache.spec import TargetSpec


class TeacherSettings(Settings):
    """The model, and the engine that runs it. dtype "auto" is the one its configuration names."""

    model: str
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    max_tokens: int = Field(2048, ge=2, description="longest example; longer ones go to quarantine")
    trust_remote_code: bool = False


class EngineSettings(Settings):
    """How the teacher runs. Changes speed only, and which responses an engine draws when it writes."""

    kind: Literal["vllm", "transformers"] = "vllm"
    tensor_parallel: int = Field(1, ge=1)
    batched_tokens: int = Field(
        2048,
        ge=64,
        description="tokens of one forward pass; bounds the memory of its logits (on a CPU at least max_tokens)",
    )
    gpu_memory_utilization: float = Field(0.85, gt=0, le=1)
    cpu_threads: int = Field(1, ge=1, description="threads of one engine where there is no GPU")


class TargetSettings(Settings):
    """What is kept of each distribution. "nucleus": the smallest head that holds `mass`, at most k."""

    mode: Literal["topk", "nucleus"] = "topk"
    k: int = Field(64, ge=1)
    mass: float = Field(0.0, ge=0, lt=1, description="probability that a nucleus holds")
    step: float = Field(TargetSpec().step, gt=0, le=1, description="spacing in nats of stored log-probabilities")
    tail_step: float = Field(TargetSpec().tail_step, gt=0, le=2, description="greatest spacing, far below 1 / k")

    @model_validator(mode="after")
    def _mass_is_of_a_nucleus(self) -> Self:
        if (self.mode == "nucleus") != (self.mass > 0):
            raise ValueError('"nucleus" needs a mass between 0 and 1, such as 0.98, and "topk" none')
        return self


class GenerationSettings(Settings):
    """Responses that the teacher writes itself, with the targets of every token of them."""

    samples: int = Field(1, ge=1, description="responses for each prompt")
    examples: int | None = Field(None, ge=1, description="only for the first so many examples; all if not given")
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_new_tokens: int = Field(256, ge=1)
    seed: int = Field(0, ge=0)
    answer_marker: str = Field("", description="text that separates the rationale from the response")
