"""A teacher on vLLM, through its public interface alone. Import of vllm is left to the moment an engine starts."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import InputError
from cache.spec import SamplingSpec
from teacher_serving.capture_rows import place_rows, rows_from_topk
from teacher_serving.config import EngineSettings, TeacherSettings
from teacher_serving.teacher import Generated, Scored

# Set for the engine's process before it starts. glibc otherwise maps and unmaps the big logits buffers at every step.
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "268435456",
}
# One process without core binding, so several engines can share a machine, and no compilation: it costs more than it
# saves for the length of a capture.
ON_CPU = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "TORCH_COMPILE_DISABLE": "1",
}
QUIET = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_CONFIGURE_LOGGING": "1"}


def engine_environment(settings: EngineSettings, on_gpu: bool) -> dict[str, str]:
    """Environment variables that the process of an engine must be started with."""
    if on_gpu:
        return {**QUIET}
    return {**QUIET, **ALLOCATOR, **ON_CPU, "OMP_NUM_THREADS": str(settings.cpu_threads)}


class VllmTeacher:
    """Scores and generates with one engine. Give it bounded batches: outputs of a call are held until it returns."""

    def __init__(
        self, folder: str, teacher: TeacherSettings, engine: EngineSettings, k: int, vocab_size: int, on_gpu: bool
    ) -> None:
        for name, value in engine_environment(engine, on_gpu).items():
            os.environ.setdefault(name, value)
        from vllm import LLM

        longest = teacher.max_tokens + 1  # scoring still generates the one token that vLLM insists on
        batched_tokens = engine.batched_tokens
        options: dict[str, Any] = {"gpu_memory_utilization": engine.gpu_memory_utilization}
        if not on_gpu:
            # A prompt cut in two rewinds its seeded generator, which a CPU's generator cannot do: prompts stay whole.
            batched_tokens = max(batched_tokens, longest)
            options = {"distributed_executor_backend": "uni", "enforce_eager": True, "enable_chunked_prefill": False}
        if engine.tensor_parallel > 1:
            options |= {"tensor_parallel_size": engine.tensor_parallel, "distributed_executor_backend": "mp"}
        self._k = k
        self._vocab_size = vocab_size
        with _touchy_modules_hidden():
            self._llm = LLM(
                model=folder,
                dtype=teacher.dtype,
                max_model_len=longest,
                max_num_batched_tokens=batched_tokens,
                max_logprobs=k,
                trust_remote_code=teacher.trust_remote_code,
                disable_log_stats=True,
                **options,
            )

    def score(self, sequences: Sequence[npt.NDArray[np.uint32]], first_rows: Sequence[int]) -> list[Scored]:
        from vllm import SamplingParams

        params = SamplingParams(
            max_tokens=1, temperature=0.0, prompt_logprobs=self._k, flat_logprobs=True, detokenize=False
        )
        outputs = self._run(sequences, [params] * len(sequences))
        scored = []
        for tokens, first_row, output in zip(sequences, first_rows, outputs, strict=True):
            # vLLM's position t is the law of token t, so it belongs to row t - 1; position 0 is empty.
            own, ids, logprobs = _rectangle(output.prompt_logprobs, first_row + 1, len(tokens), self._k)
            token_logprobs = np.full(len(tokens), np.nan, np.float32)
            token_logprobs[first_row + 1 :] = own
            rows = rows_from_topk(ids, logprobs, self._vocab_size)
            scored.append(Scored(place_rows(rows, first_row, len(tokens)), token_logprobs))
        return scored

    def generate(
        self, prompts: Sequence[npt.NDArray[np.uint32]], seeds: Sequence[int], sampling: SamplingSpec
    ) -> list[Generated]:
        from vllm import SamplingParams

        params = [
            SamplingParams(
                max_tokens=sampling.max_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                seed=seed,
                logprobs=self._k,
                flat_logprobs=True,
                detokenize=False,
            )
            for seed in seeds
        ]
        generated = []
        for output in self._run(prompts, params):
            completion = output.outputs[0]
            tokens = np.asarray(completion.token_ids, dtype=np.uint32)
            own, ids, logprobs = _rectangle(completion.logprobs, 0, len(tokens), self._k)
            rows = rows_from_topk(ids, logprobs, self._vocab_size)
            generated.append(Generated(tokens, rows, own, completion.finish_reason == "stop"))
        return generated

    def _run(self, sequences: Sequence[npt.NDArray[np.uint32]], params: list[Any]) -> list[Any]:
        prompts: list[Mapping[str, Any]] = [{"prompt_token_ids": tokens.tolist()} for tokens in sequences]
        return list(self._llm.generate(prompts, params, use_tqdm=False))


@contextmanager
def _touchy_modules_hidden() -> Iterator[None]:
    """Keep modules out of sys.modules for a while whose attributes cannot be looked through.

    vLLM's CPU build searches the attributes of every loaded module for kernels to replace, and dies of those that
    answer to any name or raise, such as the library handle of llvmlite (that is, of numba) and the proxies of flask.
    """
    hidden = {name: module for name, module in list(sys.modules.items()) if _is_touchy(module)}
    for name in hidden:
        del sys.modules[name]
    try:
        yield
    finally:
        sys.modules.update(hidden)


def _is_touchy(module: Any) -> bool:
    """Whether looking at the instance dictionaries of a module's attributes fails, as vLLM would do it."""
    for value in list((getattr(module, "__dict__", None) or {}).values()):
        try:
            if hasattr(value, "__dict__"):
                vars(value).get("kernel")
        except Exception:  # whatever the attribute raises
            return True
    return False


def _rectangle(
    flat: Any, start: int, stop: int, k: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Positions start:stop of vLLM's flat log-probabilities: own values [n], and top ids and values [n, k].

    Each position holds the token itself first, then the k largest in falling order.
    """
    n = stop - start
    if n <= 0:
        return np.zeros(0, np.float32), np.zeros((0, k), np.int64), np.zeros((0, k), np.float32)
    first, last = flat.start_indices[start], flat.end_indices[stop - 1]
    if last - first != n * (k + 1):
        raise InputError(
            f"vLLM returned {last - first} log-probabilities for {n} positions of k = {k}; is k too large?"
        )
    ids = np.asarray(flat.token_ids[first:last], dtype=np.int64).reshape(n, k + 1)
    logprobs = np.asarray(flat.logprobs[first:last], dtype=np.float32).reshape(n, k + 1)
    return logprobs[:, 0], ids[:, 1:], logprobs[:, 1:]
