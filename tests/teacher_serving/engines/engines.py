"""Teachers of one tiny model by the name of their engine, and a dense float64 forward pass to compare them with.

A start of vLLM costs as much as dozens of tests, so teachers with the same model and engine options share one engine.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from cache.examples.tokenizers import load_tokenizer
from cache.rows.spec import SamplingSpec, StoreSpec, TargetSpec
from teacher_serving.engines.settings import TeacherSettings
from teacher_serving.engines.transformers import TransformersSettings
from teacher_serving.engines.transformers.teacher import TransformersTeacher
from teacher_serving.engines.vllm import VllmSettings
from teacher_serving.engines.vllm.teacher import VllmTeacher
from teacher_serving.teacher import Request, Scored, Teacher

LONGEST = 200
# Running engines by all arguments that they were started with, the last used last. Each takes about 1.8 GiB.
_ENGINES: dict[str, Any] = {}
MAX_ENGINES = 3
Oracle = Callable[[np.ndarray], torch.Tensor]


def make_spec(model: Path, targets: TargetSpec, generates: bool = False, dtype: str = "float32") -> StoreSpec:
    width = int(AutoConfig.from_pretrained(model).vocab_size)
    sampling = SamplingSpec(1, 1.0, 1.0, 12, 0, "") if generates else None
    return StoreSpec("teacher", "weights", "tokenizer", "template", width, width - 5, dtype, targets, sampling)


def make_teacher(kind: str, model: Path, targets: TargetSpec, generates: bool = False, **options: Any) -> Teacher:
    """kind: "vllm", "vllm public" or "transformers". options: of the teacher, or of the engine."""
    dtype = options.pop("dtype", "float32")
    own = {name: options.pop(name) for name in ("lora_path",) if name in options}
    settings = TeacherSettings(model=str(model), dtype=dtype, max_tokens=LONGEST, **own)
    spec = make_spec(model, targets, generates, dtype)
    if kind == "transformers":
        return TransformersTeacher(str(model), settings, TransformersSettings(**options), spec, load_tokenizer(model))
    # So few tokens a pass that a batch of prompts takes several, and a long prompt too where it may be cut.
    options = {"batched_tokens": 64, **options}
    engine = VllmSettings(reduction="public" if kind == "vllm public" else "auto", **options)
    teacher = start_vllm(model, settings, engine, spec)
    assert bool(teacher.fallback_reason) == (kind == "vllm public"), teacher.fallback_reason
    return teacher


def start_vllm(model: Path, settings: TeacherSettings, engine: VllmSettings, spec: StoreSpec) -> VllmTeacher:
    """A teacher on the engine that runs with these options already, or on a new one. Only the newest may be used."""
    with shared_engines():
        return VllmTeacher(str(model), settings, engine, spec, on_gpu=False)


@contextmanager
def shared_engines() -> Iterator[None]:
    """Within, `vllm.LLM(...)` returns the engine that was started with equal arguments, as it was after its start."""
    import vllm

    start = vllm.LLM

    def start_once(**options: Any) -> Any:
        key = repr(sorted(options.items()))
        if key not in _ENGINES:
            close_engines(keep=MAX_ENGINES - 1)
            _ENGINES[key] = start(**options)
        elif options["distributed_executor_backend"] == "uni":
            _ENGINES[key].collective_rpc(remove_reduction)
        else:  # a function does not reach workers in other processes
            _ENGINES[key].collective_rpc("remove_reduction")
        _ENGINES[key] = _ENGINES.pop(key)
        return _ENGINES[key]

    with mock.patch.object(vllm, "LLM", start_once):
        yield


def remove_reduction(worker: Any) -> None:
    """Undo what RowsExtension.logitbank_install wraps."""
    runner = worker.model_runner
    vars(runner).pop("_get_prompt_logprobs_dict", None)
    for hooks in (
        "_forward_pre_hooks",
        "_forward_pre_hooks_with_kwargs",
        "_forward_hooks",
        "_forward_hooks_with_kwargs",
    ):
        getattr(runner.sampler, hooks).clear()


def close_engines(keep: int = 0) -> None:
    """End all engines but the `keep` last used ones, and their worker processes."""
    for key in list(_ENGINES)[: max(0, len(_ENGINES) - keep)]:
        _ENGINES.pop(key).llm_engine.engine_core.shutdown()


def make_oracle(model: Path) -> Oracle:
    """Log-probabilities float64 [n, vocabulary] of token ids [n]."""
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()

    def log_p(tokens: np.ndarray) -> torch.Tensor:
        with torch.inference_mode():
            return loaded(torch.from_numpy(tokens.astype(np.int64))[None]).logits[0].double().log_softmax(-1)

    return log_p


def make_requests(lengths: tuple[int, ...] = (1, 2, 3, 17, 64, 65, 150, LONGEST), first: int = 5) -> list[Request]:
    """Random tokens of several lengths, with the rows from `first` on requested."""
    rng = np.random.default_rng(0)
    return [
        Request(f"{i + 1:032x}", rng.integers(6, 300, n).astype(np.uint32), np.arange(min(max(n - 2, 0), first), n - 1))
        for i, n in enumerate(lengths)
    ]


def worst_difference(scored: Scored, log_p: torch.Tensor, shift: int = 0) -> float:
    """Greatest |difference| between exact entries and the oracle's rows moved by `shift`."""
    worst = 0.0
    for j in np.flatnonzero(scored.targets.exact_counts):
        n = int(scored.targets.exact_counts[j])
        row = scored.targets.rows(j, j + 1)
        truth = log_p[min(max(j + shift, 0), len(log_p) - 1)].numpy()
        worst = max(worst, float(np.abs(row.logprobs[:n] - truth[row.ids[:n]]).max()))
    return worst
