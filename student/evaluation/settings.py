"""Settings of the answers that an evaluation generates."""

from typing import Literal

from pydantic import Field

from cache.settings import Settings


class GenerationEvaluation(Settings):
    """Greedy answers to the first `prompts` different prompts. vllm: faster where answers are many or long."""

    engine: Literal["transformers", "vllm"] = "transformers"

    prompts: int = Field(200, ge=1)
    max_new_tokens: int = Field(96, ge=1)
    batch_size: int = Field(100, ge=1)
