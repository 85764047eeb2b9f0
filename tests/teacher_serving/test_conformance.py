"""Every engine says what Transformers in float32 says, about the same tokens, in the same rows."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from cache.spec import SamplingSpec
from teacher_serving.config import EngineSettings, TeacherSettings
from teacher_serving.teacher import Scored, Teacher
from teacher_serving.transformers_teacher import TransformersTeacher
from teacher_serving.vllm_teacher import VllmTeacher

K = 16
TOLERANCE = 2e-5


@pytest.fixture(scope="module", params=["vllm", "transformers"])
def teacher(request: pytest.FixtureRequest, tiny_model: Path) -> Teacher:
    settings = TeacherSettings(model=str(tiny_model), dtype="float32", max_tokens=200)
    if request.param == "transformers":
        return TransformersTeacher(str(tiny_model), settings, K)
    # So few tokens a pass that a batch of prompts takes several.
    engine = EngineSettings(batched_tokens=64)
    return VllmTeacher(str(tiny_model), settings, engine, K, vocab_size(tiny_model), on_gpu=False)


def sampling(max_tokens: int) -> SamplingSpec:
    return SamplingSpec(samples=1, temperature=1.0, top_p=1.0, max_tokens=max_tokens, seed=0, answer_marker="")


def vocab_size(model: Path) -> int:
    return int(AutoModelForCausalLM.from_pretrained(model).config.vocab_size)


@pytest.fixture(scope="module")
def oracle(tiny_model: Path) -> Callable[[np.ndarray], torch.Tensor]:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()

    def log_p(tokens: np.ndarray) -> torch.Tensor:
        with torch.inference_mode():
            return model(torch.from_numpy(tokens.astype(np.int64))[None]).logits[0].double().log_softmax(-1)

    return log_p


def sequences() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(6, 300, n).astype(np.uint32) for n in (2, 3, 17, 64, 65, 150, 200)]


def worst_difference(scored: Scored, log_p: torch.Tensor, shift: int = 0) -> float:
    """Greatest |difference| between stored rows and the oracle's rows moved by `shift`."""
    worst = 0.0
    for j in np.flatnonzero(scored.targets.counts):
        row = scored.targets.rows(j, j + 1)
        truth = log_p[min(j + shift, len(log_p) - 1)].numpy()
        worst = max(worst, float(np.abs(row.logprobs - truth[row.ids]).max()))
    return worst


def test_scores_equal_the_oracle(teacher: Teacher, oracle: Callable[[np.ndarray], torch.Tensor]) -> None:
    given = sequences()
    first_rows = [min(len(tokens) - 2, 5) for tokens in given]
    for tokens, first, scored in zip(given, first_rows, teacher.score(given, first_rows), strict=True):
        log_p = oracle(tokens)
        n = len(tokens)
        assert scored.targets.counts.tolist() == [0] * first + [K] * (n - 1 - first) + [0]
        assert worst_difference(scored, log_p) < TOLERANCE
        for j in range(first, n - 1):
            row = scored.targets.rows(j, j + 1)
            best = log_p[j].topk(K)
            assert np.abs(np.sort(row.logprobs)[::-1] - best.values.numpy()).max() < TOLERANCE
            assert np.exp(row.log_tail[0]) == pytest.approx(1 - float(best.values.exp().sum()), abs=1e-4)
        own = log_p[torch.arange(first, n - 1), torch.from_numpy(tokens[first + 1 :].astype(np.int64))].numpy()
        assert np.abs(scored.token_logprobs[first + 1 :] - own).max() < TOLERANCE
        assert np.isnan(scored.token_logprobs[: first + 1]).all()


def test_rows_moved_by_one_would_be_noticed(teacher: Teacher, oracle: Callable[[np.ndarray], torch.Tensor]) -> None:
    tokens = sequences()[3]
    scored = teacher.score([tokens], [0])[0]
    for shift in (-1, 1):
        assert worst_difference(scored, oracle(tokens), shift) > 0.1


def test_generated_rows_equal_scored_rows(teacher: Teacher) -> None:
    prompts = sequences()[:4]
    for prompt, written in zip(prompts, teacher.generate(prompts, [1, 2, 3, 4], sampling(12)), strict=True):
        m = len(written.tokens)
        assert 1 <= m <= 12
        whole = np.concatenate([prompt, written.tokens])
        scored = teacher.score([whole], [len(prompt) - 1])[0]
        again = scored.targets.rows(len(prompt) - 1, len(whole) - 1)
        assert np.abs(written.rows.logprobs - again.logprobs).max() < TOLERANCE
        assert np.abs(written.token_logprobs - scored.token_logprobs[len(prompt) :]).max() < TOLERANCE


def test_draws_depend_on_the_seed_and_not_on_the_batch(teacher: Teacher) -> None:
    prompts = sequences()[:3]
    together = teacher.generate(prompts, [11, 12, 13], sampling(10))
    alone = teacher.generate(prompts[1:2], [12], sampling(10))[0]
    other = teacher.generate(prompts[1:2], [99], sampling(10))[0]
    assert together[1].tokens.tolist() == alone.tokens.tolist()
    assert alone.tokens.tolist() != other.tokens.tolist()


def test_more_prompts_than_fit_one_pass_are_drawn_alike(teacher: Teacher) -> None:
    rng = np.random.default_rng(3)
    prompts = [rng.integers(6, 300, 30).astype(np.uint32) for _ in range(12)]
    seeds = list(range(12))
    together = teacher.generate(prompts, seeds, sampling(6))
    again = teacher.generate(prompts[::-1], seeds[::-1], sampling(6))[::-1]
    assert [g.tokens.tolist() for g in together] == [g.tokens.tolist() for g in again]
