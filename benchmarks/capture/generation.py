"""Generation with rows beside generation without."""

from typing import Any

import numpy as np

from benchmarks.capture.stages import interleaved
from benchmarks.common.harness import spread
from cache.rows.spec import SamplingSpec
from teacher_serving.teacher import Request

# Tokens of a response.
WRITTEN = 32


def measure_generation(teacher: Any, vocab: int, sampling: SamplingSpec, count: int, repeats: int) -> dict[str, Any]:
    """Tokens a second that the engine generates with rows and without. The tokens are the same."""
    from vllm import SamplingParams

    from teacher_serving.reduction.draws import sampling_seed

    rng = np.random.default_rng(1)
    prompts = [Request(f"{i + 1:032x}", rng.integers(0, vocab, 32).astype(np.uint32)) for i in range(count)]
    params = [
        SamplingParams(
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            seed=sampling_seed(prompt.key, sampling.seed),
            detokenize=False,
        )
        for prompt in prompts
    ]
    plain = [{"prompt_token_ids": prompt.tokens.tolist()} for prompt in prompts]
    stages = {
        "without": lambda: teacher._llm.generate(plain, params, use_tqdm=False),
        "with": lambda: teacher.generate(prompts, sampling),
    }
    seconds = interleaved(stages, repeats)
    turns = [without / ours for without, ours in zip(seconds["without"], seconds["with"], strict=True)]
    tokens = sum(len(answer.tokens) for answer in teacher.generate(prompts, sampling))
    return {
        "generation_ratio": float(np.median(turns)),
        "generation_rates": {name: spread([tokens / s for s in taken]) for name, taken in seconds.items()},
    }
