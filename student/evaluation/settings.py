"""Settings of the answers that students generate in an evaluation."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from cache.settings import Settings


class AnswerSettings(Settings):
    """Greedy answers to the first `prompts` different prompts. vllm is faster for many or long answers.

    shots: worked examples, which the models of `with_shots` see as earlier turns. Only the answers of these models are
    judged: their losses are those of the same model without shots.
    """

    engine: Literal["transformers", "vllm"] = Field("transformers", description="what generates")

    prompts: int = Field(200, ge=1, description="different prompts that are answered")
    max_new_tokens: int = Field(96, ge=1, description="tokens of an answer at most")
    batch_size: int = Field(100, ge=1, description="prompts at a time (transformers)")

    rounds: int = Field(0, ge=0, le=9, description="rounds of feedback after a miss, if the task gives any")
    shots: Path | None = Field(None, description="JSON Lines file of worked examples")
    shown: int = Field(3, ge=1, description="examples of this file that are shown, from the first on")
    with_shots: tuple[str, ...] = Field((), description="names of the models that see them")

    def unused_keys(self) -> dict[str, str]:
        unused = {"batch_size": 'engine = "vllm" makes batches of its own'} if self.engine == "vllm" else {}
        return unused if self.shots else unused | {"shown": "there is no file 'shots'"}

    @model_validator(mode="after")
    def _shots_and_models(self) -> Self:
        if bool(self.shots) != bool(self.with_shots):
            raise ValueError("give both 'shots', a file, and 'with_shots', names of models, or neither")
        return self
