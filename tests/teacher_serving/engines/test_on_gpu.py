"""vLLM on a GPU, with the model runner that VLLM_USE_V2_MODEL_RUNNER selects: its rows are those of a dense pass.

VLLM_USE_V2_MODEL_RUNNER=1 python -m pytest tests/teacher_serving/engines/test_on_gpu.py
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cache.errors import LogitbankError
from cache.rows.spec import SamplingSpec, TargetSpec
from teacher_serving.asking.requests import continuation_request
from teacher_serving.engines.settings import TeacherSettings
from teacher_serving.engines.vllm import VllmSettings
from teacher_serving.engines.vllm.teacher import VllmTeacher
from teacher_serving.engines.vllm.workers import runner_v2
from teacher_serving.reduction.draws import row_uniforms
from teacher_serving.reduction.reducer import Reducer
from teacher_serving.teacher import Request
from tests.teacher_serving.engines.engines import LONGEST, make_oracle, make_spec, worst_difference

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU and vLLM's CUDA build"),
]

TARGETS = {
    "topk": TargetSpec(k=16),
    "threshold": TargetSpec("threshold", threshold=0.05, entropy=True, temperatures=(0.5, 2.0)),
    "sampled": TargetSpec("sampled", draws=20, systematic=True),
}
# vLLM's attention rounds float32 to TF32 on a GPU. Rows moved by one differ by 0.1 and more.
TOLERANCE = 1e-2
SAMPLING = SamplingSpec(samples=1, temperature=1.0, top_p=1.0, max_tokens=12, seed=0, answer_marker="")


@pytest.fixture(scope="module", params=list(TARGETS))
def teacher(request: pytest.FixtureRequest, tiny_model: Path) -> Iterator[VllmTeacher]:
    """Steps of 64 tokens, so that prompts are cut, and few requests at once."""
    options = {"enforce_eager": True, "max_num_seqs": 32}
    engine = VllmSettings(batched_tokens=64, gpu_memory_utilization=0.2, options=options)
    settings = TeacherSettings(model=str(tiny_model), dtype="float32", max_tokens=LONGEST)
    spec = make_spec(tiny_model, TARGETS[request.param], generates=True)
    started = VllmTeacher(str(tiny_model), settings, engine, spec, on_gpu=True)
    yield started
    started._llm.llm_engine.engine_core.shutdown()


def requests_of(count: int) -> list[Request]:
    rng = np.random.default_rng(1)
    lengths = rng.integers(2, LONGEST, count)
    return [
        Request(f"{i + 1:032x}", rng.integers(6, 300, n).astype(np.uint32), np.arange(min(n - 2, 5), n - 1))
        for i, n in enumerate(lengths)
    ]


def test_the_runner_is_the_one_that_was_asked_for(teacher: VllmTeacher) -> None:
    llm: Any = teacher._llm
    runner = llm.llm_engine.model_executor.driver_worker.worker.model_runner
    assert runner_v2.is_v2(runner) == (os.environ.get("VLLM_USE_V2_MODEL_RUNNER", "1") == "1")
    assert teacher.fallback_reason == "" and teacher.rows_from == ""


def test_hundreds_of_requests_get_their_own_rows(teacher: VllmTeacher, tiny_model: Path) -> None:
    oracle, targets = make_oracle(tiny_model), teacher._targets
    given = requests_of(300)
    drawn_otherwise = 0
    for request, scored in zip(given, teacher.score(given), strict=True):
        log_p = oracle(request.tokens)
        assert np.flatnonzero(scored.targets.counts).tolist() == request.rows.tolist()
        assert worst_difference(scored, log_p) < TOLERANCE
        following = request.tokens[request.rows + 1].astype(np.int64)
        own = log_p[request.rows, following].numpy()
        assert np.abs(scored.token_logprobs[request.rows + 1] - own).max(initial=0) < TOLERANCE
        uniforms = row_uniforms(targets, request.key, request.rows)
        truth = Reducer(targets, log_p.shape[1]).reduce(log_p[request.rows].float(), following, uniforms).targets
        rows = scored.targets.rows(int(request.rows[0]), int(request.rows[-1]) + 1)
        for i in range(len(rows)):
            one, other = rows.rows(i, i + 1), truth.rows(i, i + 1)
            if set(one.ids.tolist()) != set(other.ids.tolist()):
                drawn_otherwise += 1
            else:
                assert abs(np.exp(one.log_tail[0]) - np.exp(other.log_tail[0])) < TOLERANCE
        if targets.entropy:
            assert rows.entropy is not None and truth.entropy is not None
            assert np.abs(rows.entropy - truth.entropy).max() < TOLERANCE
        if targets.temperatures:
            assert rows.log_normalizers is not None and truth.log_normalizers is not None
            assert np.abs(rows.log_normalizers - truth.log_normalizers).max() < TOLERANCE
    # Logits differ in their last digits, which moves a draw, or an entry, that falls between two ids.
    assert drawn_otherwise <= 0.02 * sum(len(request.rows) for request in given)


def test_what_is_written_has_the_rows_of_scoring_it(teacher: VllmTeacher, tiny_model: Path) -> None:
    oracle = make_oracle(tiny_model)
    prompts = [each for each in requests_of(90) if len(each.tokens) + SAMPLING.max_tokens <= LONGEST]
    written = teacher.generate(prompts, SAMPLING)
    assert teacher.rows_from == ""
    again = teacher.generate(prompts[::-1], SAMPLING)[::-1]
    # The last digits of logits depend on the batch, and now and then a drawn token on them.
    same = [one.tokens.tolist() == other.tokens.tolist() for one, other in zip(written, again, strict=True)]
    assert np.mean(same) > 0.9
    for prompt, response in zip(prompts, written, strict=True):
        continuation = continuation_request(prompt, response.tokens)
        log_p = oracle(continuation.tokens)[continuation.rows]
        own = log_p[np.arange(len(response.tokens)), response.tokens.astype(np.int64)].numpy()
        assert np.abs(response.token_logprobs - own).max() < TOLERANCE
        assert (response.rows.counts > 0).all()


def test_a_failed_reduction_ends_the_call_and_not_the_engine(
    teacher: VllmTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Reducer, *arguments: Any) -> Any:
        raise RuntimeError("out of memory")

    given = requests_of(20)
    with monkeypatch.context() as patch:
        patch.setattr(Reducer, "start", fail)
        for call in (lambda: teacher.score(given), lambda: teacher.generate(given, SAMPLING)):
            with pytest.raises(LogitbankError, match=r"could not make rows.*out of memory"):
                call()
    assert all(
        np.flatnonzero(s.targets.counts).tolist() == r.rows.tolist()
        for r, s in zip(given, teacher.score(given), strict=True)
    )
