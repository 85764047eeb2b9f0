"""The stages that are timed: limits from below, vLLM's public log-probabilities, and ours. All use one engine."""

import ctypes
import time
from collections.abc import Callable
from typing import Any

from teacher_serving.engines.process import ALLOCATOR
from teacher_serving.engines.vllm.workers import runner_v2
from teacher_serving.engines.vllm.workers.runner_v1 import PROMPT_STEP
from teacher_serving.teacher import Request

# Of mallopt(3).
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
# Rows of logits that runner V2 of vLLM makes at once.
V2_ROWS = 1024


def interleaved(stages: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each stage in each turn, after one turn that warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in stages}
    for turn in range(repeats + 1):
        for name, stage in stages.items():
            started = time.perf_counter()
            stage()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def forward_stages(teacher: Any, requests: list[Request], k: int, on_gpu: bool) -> dict[str, Callable[[], Any]]:
    """A call for each limit, each peer and ours. Each sends the same prompts through the same engine."""
    from vllm import SamplingParams

    llm = teacher._llm
    prompts = [{"prompt_token_ids": request.tokens.tolist()} for request in requests]
    owner, name, steps = _prompt_step(_runner(teacher), k)
    own_step = getattr(owner, name)

    def run(stage: str = "", tuned: bool = True, **options: Any) -> None:
        params = SamplingParams(max_tokens=1, temperature=0, detokenize=False, **options)
        setattr(owner, name, steps[stage] if stage else own_step)
        if not on_gpu:
            set_allocator(tuned)
        try:
            llm.generate(prompts, params, use_tqdm=False)
        finally:
            setattr(owner, name, own_step)
            if not on_gpu:
                set_allocator(True)

    stages: dict[str, Callable[[], Any]] = {
        "prefill": lambda: run(skip_reading_prefix_cache=True),
        "prefill_gemm": lambda: run("logits", prompt_logprobs=0),
        "floor": lambda: run("topk", prompt_logprobs=0),
        "stock_dict": lambda: run(tuned=False, prompt_logprobs=k),
        "tuned_dict": lambda: run(prompt_logprobs=k),
        "tuned_flat": lambda: run(prompt_logprobs=k, flat_logprobs=True),
        "ours": lambda: teacher.score(requests),
    }
    if on_gpu:  # the allocator of the host changes nothing there
        del stages["tuned_dict"]
    return stages


def runner_of(teacher: Any) -> str:
    """Which model runner an engine in this process has: "V1" or "V2"."""
    return "V2" if runner_v2.is_v2(_runner(teacher)) else "V1"


def _runner(teacher: Any) -> Any:
    return teacher._llm.llm_engine.model_executor.driver_worker.worker.model_runner


def _prompt_step(runner: Any, k: int) -> tuple[Any, str, dict[str, Callable[..., Any]]]:
    """The object and the name of the step for prompt log-probabilities, and what takes its place in the limits."""
    if runner_v2.is_v2(runner):
        name = "compute_prompt_logprobs"
        return runner.prompt_logprobs_worker, name, {"logits": _v2_step(None), "topk": _v2_step(k)}

    def step(use: Callable[[Any], Any]) -> Callable[..., Any]:
        return lambda hidden, scheduled: _visit(runner, hidden, scheduled, use)

    return runner, PROMPT_STEP, {"logits": step(lambda logits: None), "topk": step(lambda logits: logits.topk(k))}


def _v2_step(k: int | None) -> Callable[..., dict[str, Any]]:
    """Make the logits of all tokens of a pass, block by block as runner V2 does it, and their k largest."""

    def step(logits_fn: Any, hidden: Any, batch: Any, *others: Any) -> dict[str, Any]:
        for start in range(0, batch.num_tokens, V2_ROWS):
            logits = logits_fn(hidden[start : min(start + V2_ROWS, batch.num_tokens)])
            if k:
                logits.topk(k)
        return {}

    return step


def set_allocator(tuned: bool) -> None:
    """Set glibc's allocator as a capture does, or to its state after a few large blocks."""
    values = [int(text) for text in ALLOCATOR.values()] if tuned else [32 << 20, 64 << 20, 128 << 10]
    for option, value in zip((M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_TOP_PAD), values, strict=True):
        ctypes.CDLL(None).mallopt(option, min(value, (1 << 31) - 1))


def _visit(runner: Any, hidden: Any, scheduled: dict[str, int], use: Callable[[Any], Any]) -> dict[str, Any]:
    """Make the logits of each prompt in a pass, as vLLM does it: prompt by prompt."""
    for name in list(runner.num_prompt_logprobs):
        if name not in scheduled:
            continue
        request = runner.requests[name]
        offset = int(runner.query_start_loc.np[runner.input_batch.req_id_to_index[name]])
        n = min(scheduled[name], len(request.prompt_token_ids) - 1 - request.num_computed_tokens)
        if n > 0:
            use(runner.model.compute_logits(hidden[offset : offset + n]))
        if request.num_computed_tokens + scheduled[name] >= len(request.prompt_token_ids):
            del runner.num_prompt_logprobs[name]
    return {}
