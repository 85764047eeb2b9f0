"""Settings of the answers that students generate in an evaluation."""

from typing import Literal

from pydantic import Field

from cache.settings import Settings


class AnswerSettings(Settings):
    """Greedy answers to the first `prompts` different prompts. vllm is faster for many or long answers."""

    engine: Literal["transformers", "vllm"] = Field("transformers", description="what generates")

    prompts: int = Field(200, ge=1, description="different prompts that are answered")
    max_new_tokens: int = Field(96, ge=1, description="tokens of an answer at most")
    batch_size: int = Field(100, ge=1, description="prompts at a time (transformers)")

    def unused_keys(self) -> dict[str, str]:
        return {"batch_size": 'engine = "vllm" makes batches of its own'} if self.engine == "vllm" else {}
