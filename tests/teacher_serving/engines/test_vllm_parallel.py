"""vLLM over two ranks, in half precision, and where the reduction in its workers is not available."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.errors import LogitbankError
from cache.rows.spec import SamplingSpec, TargetSpec
from teacher_serving.asking.requests import continuation_request
from teacher_serving.engines.settings import TeacherSettings
from teacher_serving.engines.vllm import VllmSettings, llm_options
from teacher_serving.engines.vllm.teacher import VllmTeacher
from teacher_serving.engines.vllm.workers.extension import RowsExtension
from teacher_serving.reduction.reducer import Reducer
from tests.teacher_serving.engines.engines import (
    LONGEST,
    make_oracle,
    make_requests,
    make_spec,
    make_teacher,
    start_vllm,
    worst_difference,
)
from tests.teacher_serving.reduction.dense import entropy_of

pytestmark = pytest.mark.slow

TOPK = TargetSpec(k=16)
THRESHOLD = TargetSpec("threshold", threshold=0.05, entropy=True)
TOLERANCE = 2e-5
# bfloat16 has 8 bits: two layers of it, and logits of about 8, make a few hundredths of a nat.
IN_HALF = 0.1
SAMPLING = SamplingSpec(samples=1, temperature=1.0, top_p=1.0, max_tokens=8, seed=0, answer_marker="")
PIPELINE = "tests.teacher_serving.engines.pipeline.PipelineExtension"


@pytest.mark.parametrize(
    "ranks, targets",
    # How rows are made of logits does not depend on which rank of a pipeline holds them.
    [("tensor_parallel", TOPK), ("tensor_parallel", THRESHOLD), ("pipeline_parallel", THRESHOLD)],
    ids=["tensor topk", "tensor threshold", "pipeline threshold"],
)
def test_two_ranks_agree_with_one(
    ranks: str, targets: TargetSpec, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llm_options, "EXTENSION", PIPELINE)
    oracle = make_oracle(tiny_model)
    teacher = make_teacher("vllm", tiny_model, targets, generates=True, **{ranks: 2})
    given = make_requests()
    for request, scored in zip(given, teacher.score(given), strict=True):
        log_p = oracle(request.tokens)
        assert np.flatnonzero(scored.targets.counts).tolist() == request.rows.tolist()
        assert worst_difference(scored, log_p) < TOLERANCE
        token_logprobs = log_p[request.rows, request.tokens[request.rows + 1].astype(np.int64)].numpy()
        assert np.abs(scored.token_logprobs[request.rows + 1] - token_logprobs).max(initial=0) < TOLERANCE
        if targets.mode == "threshold":
            expected = (log_p[request.rows].exp() >= targets.threshold).sum(-1).numpy()
            assert np.array_equal(scored.targets.exact_counts[request.rows], expected)
            assert scored.targets.entropy is not None
            truth = entropy_of(log_p[request.rows].numpy())
            assert np.abs(scored.targets.entropy[request.rows] - truth).max(initial=0) < TOLERANCE
    prompts = given[1:4]
    for prompt, written in zip(prompts, teacher.generate(prompts, SAMPLING), strict=True):
        continuation = continuation_request(prompt, written.tokens)
        log_p = oracle(continuation.tokens)[continuation.rows]
        token_logprobs = log_p[np.arange(len(written.tokens)), written.tokens.astype(np.int64)].numpy()
        assert np.abs(written.token_logprobs - token_logprobs).max() < TOLERANCE
        assert (written.rows.counts > 0).all()


@pytest.mark.parametrize("kind", ["vllm", "vllm public"])
def test_half_precision_is_near(kind: str, tiny_model: Path) -> None:
    oracle = make_oracle(tiny_model)
    given = make_requests()
    scores = make_teacher(kind, tiny_model, TOPK, dtype="bfloat16").score(given)
    plain = make_teacher("transformers", tiny_model, TOPK, dtype="bfloat16").score(given)
    rounded = 0.0
    for request, scored, other in zip(given, scores, plain, strict=True):
        assert worst_difference(scored, oracle(request.tokens)) < IN_HALF
        assert np.nanmax(np.abs(scored.token_logprobs - other.token_logprobs), initial=0) < IN_HALF
        rounded = max(rounded, worst_difference(scored, oracle(request.tokens)))
        for j in request.rows:
            one, two = scored.targets.rows(j, j + 1), other.targets.rows(j, j + 1)
            ours, theirs = (dict(zip(row.ids.tolist(), row.logprobs.tolist(), strict=True)) for row in (one, two))
            assert max(abs(ours[i] - theirs[i]) for i in ours.keys() & theirs.keys()) < IN_HALF
            assert abs(np.exp(one.log_tail[0]) - np.exp(two.log_tail[0])) < IN_HALF
            # Where the two disagree on what belongs to the largest, those are nearly as large.
            assert all(ours[i] < one.logprobs.min() + IN_HALF for i in ours.keys() - theirs.keys())
        scored.targets.validate(make_spec(tiny_model, TOPK).vocab_size, "scores")
    assert rounded > TOLERANCE, "this was not half precision"


def start_plain(model: Path, targets: TargetSpec) -> VllmTeacher:
    settings = TeacherSettings(model=str(model), dtype="float32", max_tokens=LONGEST)
    return start_vllm(model, settings, VllmSettings(batched_tokens=64), make_spec(model, targets))


def renamed(self: Any, hidden_states: Any, scheduled: Any) -> Any:
    """vLLM's step as another version may have it."""
    return {}


def worse(self: Any, *arguments: Any) -> Any:
    """Rows that are not those of the logits."""
    rows = REDUCE(self, *arguments)
    return type(rows)(rows.targets, rows.token_logprobs - 0.01)


REDUCE = Reducer.reduce
STEP = "vllm.v1.worker.gpu_model_runner.GPUModelRunner._get_prompt_logprobs_dict"


@pytest.mark.parametrize(
    "targets, lacking, reason",
    [
        (TOPK, "install", "no room"),
        (TargetSpec("nucleus", k=16, mass=0.5), "parameters", "takes hidden_states, scheduled"),
        (THRESHOLD, "parameters", "takes hidden_states, scheduled"),
        (TOPK, "rows", "differ from the public ones by 0 (median) and 0.01 (99th percentile)"),
    ],
    ids=["install", "parameters", "parameters, logits needed", "other rows"],
)
def test_where_the_workers_step_does_not_fit_the_public_interface_serves(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, targets: TargetSpec, lacking: str, reason: str
) -> None:
    with monkeypatch.context() as patch:
        if lacking == "install":
            patch.setattr(RowsExtension, "logitbank_install", lambda self, *arguments: "no room")
        elif lacking == "parameters":
            patch.setattr(STEP, renamed)
        else:
            patch.setattr(Reducer, "reduce", worse)
            patch.setattr(Reducer, "check_kernels", lambda self, device: "")
        if targets.mode == "threshold":
            with pytest.raises(LogitbankError, match=f"'threshold'.*{reason}.*engine.kind = \"transformers\""):
                start_plain(tiny_model, targets)
            return
        teacher = start_plain(tiny_model, targets)
    assert reason in teacher.fallback_reason
    oracle = make_oracle(tiny_model)
    for request in make_requests()[3:5]:
        scored = teacher.score([request])[0]
        assert np.flatnonzero(scored.targets.counts).tolist() == request.rows.tolist()
        assert worst_difference(scored, oracle(request.tokens)) < TOLERANCE
