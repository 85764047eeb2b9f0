"""Teachers of one tiny model by the name of their engine, and what a dense float64 forward pass says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from cache.rows.spec import SamplingSpec, StoreSpec, TargetSpec
from teacher_serving.engines.settings import EngineSettings, TeacherSettings
from teacher_serving.engines.transformers.teacher import TransformersTeacher
from teacher_serving.engines.vllm.teacher import VllmTeacher
from teacher_serving.teacher import Request, Scored, Teacher

LONGEST = 200
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
        return TransformersTeacher(str(model), settings, EngineSettings(kind="transformers", **options), spec)
    # So few tokens a pass that a batch of prompts takes several, and a long prompt too where it may be cut.
    options = {"batched_tokens": 64, **options}
    engine = EngineSettings(reduction="public" if kind == "vllm public" else "auto", **options)
    teacher = VllmTeacher(str(model), settings, engine, spec, on_gpu=False)
    expected = "public interface" if kind == "vllm public" else "in the workers"
    assert teacher.step == expected, teacher.why_public
    return teacher


def make_oracle(model: Path) -> Oracle:
    """Log-probabilities float64 [n, vocabulary] of token ids [n]."""
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()

    def log_p(tokens: np.ndarray) -> torch.Tensor:
        with torch.inference_mode():
            return loaded(torch.from_numpy(tokens.astype(np.int64))[None]).logits[0].double().log_softmax(-1)

    return log_p


def make_requests(lengths: tuple[int, ...] = (1, 2, 3, 17, 64, 65, 150, LONGEST), first: int = 5) -> list[Request]:
    """Random tokens of several lengths, asked for from row `first` on."""
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
