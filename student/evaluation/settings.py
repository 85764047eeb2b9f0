"""Settings of the answers that students generate in an evaluation."""

from typing import Literal

from pydantic import Field

from cache.settings import Settings


class AnswerSettings(Settings):
    """Greedy answers to the first `prompts` different prompts. vllm is faster for many or long answers."""

    engine: Literal["transformers", "vllm"] = "transformers"

    prompts: int = Field(200, ge=1)
    max_new_tokens: int = Field(96, ge=1)
    batch_size: int = Field(100, ge=1)
