"""Greedy answers of a model through vLLM, in a process of its own: vLLM reads its environment when torch is imported.

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
from cache.rows.spec import SamplingSpec, StoreSpec, TargetSpec
from student.evaluation.settings import AnswerSettings
from teacher_serving.engines.process import available_threads
from teacher_serving.engines.settings import TeacherSettings
from teacher_serving.engines.vllm import VllmSettings
from teacher_serving.engines.vllm.process import process_environment

Tokens = npt.NDArray[np.uint32]


def generate_with_vllm(path: str, prompts: Sequence[Tokens], settings: AnswerSettings, progress: Progress) -> list[str]:
    """Continue each prompt, uint32 [n], greedily. Raises LogitbankError with the end of vLLM's log if it fails."""
    tokenizer = load_tokenizer(path)
    with tempfile.TemporaryDirectory() as folder:
        prompts_file, answers_file = Path(folder) / "prompts.npz", Path(folder) / "answers.npz"
        _save(prompts_file, prompts)
        command = [
            sys.executable,
            "-m",
            "cluster.evaluation.vllm_answers",
            path,
            prompts_file,
            answers_file,
            settings.max_new_tokens,
        ]
        environment = os.environ | process_environment(available_threads(), _has_gpu())
        process = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=False)
        if process.returncode:
            raise LogitbankError(
                f'model {path!r}: vLLM failed; set generation.engine = "transformers". {process.stderr[-600:]}'
            )
        texts = [decode(tokens, tokenizer) for tokens in _load(answers_file)]
    progress(len(texts), len(texts))
    return texts


def main(path: str, prompts: Path, answers: Path, max_new_tokens: int) -> None:
    """Run in the process: answer all prompts at once. Only token ids are in memory."""
    from transformers import AutoConfig

    from teacher_serving.engines.vllm.teacher import VllmTeacher
    from teacher_serving.teacher import Request

    token_ids = _load(prompts)
    vocab = int(AutoConfig.from_pretrained(path, trust_remote_code=False).get_text_config().vocab_size)
    sampling = SamplingSpec(1, 0.0, 1.0, max_new_tokens, 0, "")
    spec = StoreSpec(path, "", "", "", vocab, vocab, "auto", TargetSpec("topk", 0), sampling)
    teacher = TeacherSettings(model=path, max_tokens=max(map(len, token_ids)) + max_new_tokens)
    # Only tokens are needed, no rows, so that no reduction is installed.
    engine = VllmTeacher(
        path, teacher, VllmSettings(reduction="public", cpu_threads=available_threads()), spec, _has_gpu()
    )
    requests = [Request(f"{i:032x}", tokens) for i, tokens in enumerate(token_ids)]
    _save(answers, [answer.tokens for answer in engine.generate(requests, sampling)])


def _save(path: Path, sequences: Sequence[Tokens]) -> None:
    offsets = np.cumsum([0, *map(len, sequences)])
    np.savez(path, tokens=np.concatenate(sequences), offsets=offsets)


def _load(path: Path) -> list[Tokens]:
    with np.load(path, allow_pickle=False) as archive:
        tokens, offsets = archive["tokens"], archive["offsets"]
    return [tokens[start:stop] for start, stop in pairwise(offsets)]


def _has_gpu() -> bool:
    """Whether an NVIDIA driver is loaded. Does not import torch, which must load after the environment is set."""
    return Path("/proc/driver/nvidia/version").exists()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
