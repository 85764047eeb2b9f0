"""Greedy answers of a model through vLLM, in a process of its own: an engine wants its environment before torch loads.

python -m cluster.evaluation.vllm_answers MODEL PROMPTS.npz ANSWERS.npz MAX_NEW_TOKENS
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cache.errors import LogitbankError
from cache.examples.tokenizers import decode, load_tokenizer
from cache.progress import Progress
from cache.rows.record import Record
from cache.rows.spec import SamplingSpec, StoreSpec, TargetSpec
from student.evaluation.settings import GenerationEvaluation
from teacher_serving.engines.settings import EngineSettings, TeacherSettings
from teacher_serving.engines.vllm.process import engine_environment

Tokens = npt.NDArray[np.uint32]


def vllm_answers(path: str, prompts: Sequence[Record], settings: GenerationEvaluation, progress: Progress) -> list[str]:
    """Continuations of the prompts, as text. Raises LogitbankError with vLLM's last words where it fails."""
    tokenizer = load_tokenizer(path)
    asked = [record.tokenized.tokens[: record.tokenized.prompt_length] for record in prompts]
    with tempfile.TemporaryDirectory() as folder:
        given, answered = Path(folder) / "prompts.npz", Path(folder) / "answers.npz"
        _save(given, asked)
        command = [
            sys.executable,
            "-m",
            "cluster.evaluation.vllm_answers",
            path,
            given,
            answered,
            settings.max_new_tokens,
        ]
        environment = os.environ | engine_environment(EngineSettings(), _has_gpu())
        done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise LogitbankError(
                f'model {path!r}: vLLM failed; set generation.engine = "transformers". {done.stderr[-600:]}'
            )
        texts = [decode(tokens, tokenizer) for tokens in _load(answered)]
    progress(len(texts), len(texts))
    return texts


def main(path: str, prompts: Path, answers: Path, max_new_tokens: int) -> None:
    """The process: all prompts at once, since only token ids are held."""
    from transformers import AutoConfig

    from teacher_serving.engines.vllm.teacher import VllmTeacher
    from teacher_serving.teacher import Request

    asked = _load(prompts)
    vocab = int(AutoConfig.from_pretrained(path).get_text_config().vocab_size)
    sampling = SamplingSpec(1, 0.0, 1.0, max_new_tokens, 0, "")
    spec = StoreSpec(path, "", "", "", vocab, vocab, "auto", TargetSpec("topk", 0), sampling)
    teacher = TeacherSettings(model=path, max_tokens=max(map(len, asked)) + max_new_tokens)
    engine = VllmTeacher(path, teacher, EngineSettings(), spec, _has_gpu())
    requests = [Request(f"{i:032x}", tokens) for i, tokens in enumerate(asked)]
    _save(answers, [answer.tokens for answer in engine.generate(requests, sampling)])


def _save(path: Path, sequences: Sequence[Tokens]) -> None:
    offsets = np.cumsum([0, *map(len, sequences)])
    np.savez(path, tokens=np.concatenate(sequences), offsets=offsets)


def _load(path: Path) -> list[Tokens]:
    with np.load(path, allow_pickle=False) as archive:
        tokens, offsets = archive["tokens"], archive["offsets"]
    return [tokens[start:stop] for start, stop in pairwise(offsets)]


def _has_gpu() -> bool:
    """Whether a driver answers, asked without torch, which must not load before an engine's environment is set."""
    return Path("/proc/driver/nvidia/version").exists()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
