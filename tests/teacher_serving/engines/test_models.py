"""Engines agree on models of several families: heads that are tied, capped, scaled, padded or quantised."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cache.examples.example import Example
from cache.rows.spec import TargetSpec
from teacher_serving.asking.plan import Limits, plan_capture
from teacher_serving.asking.requests import scoring_request
from teacher_serving.asking.settings import GenerationSettings
from teacher_serving.capture.start import describe
from teacher_serving.engines.description import TeacherDescription
from teacher_serving.engines.settings import TeacherSettings
from teacher_serving.engines.vllm import VllmSettings
from teacher_serving.reduction.settings import TargetSettings
from tests.cache.examples.chats import PLAIN, chat_tokenizer, turn
from tests.teacher_serving.engines.engines import make_oracle, make_requests, make_spec, make_teacher, worst_difference
from tests.teacher_serving.engines.models import CONFIGS, quantise, save_model

pytestmark = pytest.mark.slow

TOLERANCE = 2e-5
# vLLM's integer kernels round each batch by itself; and what 8 bits a weight and an activation cost in nats.
SAME_QUANTISED, QUANTISED = 1e-4, 0.5


@pytest.mark.parametrize("name", list(CONFIGS))
def test_vllm_agrees_with_transformers(name: str, tiny_model: Path, tmp_path: Path) -> None:
    model = save_model(name, tmp_path, AutoTokenizer.from_pretrained(tiny_model))
    exact = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float64, attn_implementation="eager").eval()
    targets = TargetSpec("threshold", threshold=0.01)
    given = make_requests()[2:]
    scores = [make_teacher(kind, model, targets).score(given) for kind in ("vllm", "transformers")]
    for request, ours, theirs in zip(given, *scores, strict=True):
        with torch.inference_mode():
            log_p = exact(torch.from_numpy(request.tokens.astype(np.int64))[None]).logits[0].log_softmax(-1)
        token_logprobs = log_p[request.rows, request.tokens[request.rows + 1].astype(np.int64)].numpy()
        for scored in (ours, theirs):
            assert np.flatnonzero(scored.targets.counts).tolist() == request.rows.tolist()
            assert worst_difference(scored, log_p) < TOLERANCE
            assert np.abs(scored.token_logprobs[request.rows + 1] - token_logprobs).max() < TOLERANCE


def test_a_quantised_model_gives_the_same_rows_in_the_workers_and_in_public(tiny_model: Path, tmp_path: Path) -> None:
    """8-bit weights and activations, of which Transformers makes other numbers: vLLM is held against itself."""
    model = save_model("plain", tmp_path, AutoTokenizer.from_pretrained(tiny_model))
    before = make_oracle(model)
    quantise(model)
    assert describe_model(model).spec.weights != describe_model(tiny_model).spec.weights
    given = make_requests()
    scores = [make_teacher(kind, model, TargetSpec(k=16)).score(given) for kind in ("vllm", "vllm public")]
    rounded = 0.0
    for request, ours, theirs in zip(given, *scores, strict=True):
        assert np.nanmax(np.abs(ours.token_logprobs - theirs.token_logprobs), initial=0) < SAME_QUANTISED
        assert np.abs(ours.targets.logprobs - theirs.targets.logprobs).max(initial=0) < SAME_QUANTISED
        assert np.array_equal(ours.targets.offsets, theirs.targets.offsets)
        assert worst_difference(ours, before(request.tokens)) < QUANTISED
        rounded = max(rounded, worst_difference(ours, before(request.tokens)))
    assert rounded > 100 * TOLERANCE, "this was not quantised"


@pytest.mark.parametrize("kind", ["vllm", "vllm public", "transformers"])
def test_ids_beyond_the_tokenizer_belong_to_the_distribution(kind: str, tiny_model: Path) -> None:
    """The model has 5 logits more than its tokenizer has ids: they hold mass, and a row without them would not be 1."""
    spec = describe_model(tiny_model).spec
    assert spec.vocab_size == spec.tokenizer_size + 5 == make_spec(tiny_model, TargetSpec(k=4)).vocab_size
    request = make_requests()[3]
    scored = make_teacher(kind, tiny_model, TargetSpec(k=spec.vocab_size)).score([request])[0]
    scored.targets.validate(spec.vocab_size, "scores")
    rows = scored.targets.rows(int(request.rows[0]), int(request.rows[-1]) + 1)
    assert (rows.counts == spec.vocab_size).all() and np.isneginf(rows.log_tail).all()
    assert (np.bincount(rows.ids, minlength=spec.vocab_size) == len(rows)).all()
    assert worst_difference(scored, make_oracle(tiny_model)(request.tokens)) < TOLERANCE


def describe_model(model: Path) -> TeacherDescription:
    return describe(TeacherSettings(model=str(model), max_tokens=200), VllmSettings(), TargetSettings(k=4), None)


@pytest.mark.parametrize("template", ["none", "with its own", "without"])
def test_a_prompt_begins_with_one_token_of_beginning(template: str, tiny_model: Path, tmp_path: Path) -> None:
    """The tokenizer adds one to any text; a chat template may write one too, or none, and then there is none."""
    tokenizer = chat_tokenizer(None, adds_bos=True)
    tokenizer.chat_template = {"none": None, "with its own": "{{ bos_token }}" + PLAIN, "without": PLAIN}[template]
    AutoModelForCausalLM.from_pretrained(tiny_model).save_pretrained(tmp_path)
    tokenizer.save_pretrained(str(tmp_path))
    described = describe_model(tmp_path)
    bos = described.tokenizer.bos_token_id
    example = Example("1", (turn("user", "two and two"),), "", "it is 4")
    trace = Example("2", (turn("user", "two and two"), turn("assistant", "it is 4")))
    limits = Limits(100, described.spec.vocab_size)
    generation = GenerationSettings(max_new_tokens=4)
    plan = plan_capture([example, trace], described.tokenizer, limits, True, "assistant", generation, None)
    assert len(plan.examples) >= 3 and not plan.rejected
    for item in plan.examples.values():
        tokens = item.tokenized.tokens.tolist()
        assert tokens.count(bos) == (template != "without")
        assert tokens.index(bos) == 0 if template != "without" else bos not in tokens
        assert item.request.tokens.tolist() == tokens
    scored = next(item for item in plan.examples.values() if item.tokenized.origin == "scored")
    request = scoring_request(scored.tokenized, "assistant")
    # What the engine reads is exactly that: a token added by it would move every row.
    for kind in ("vllm", "transformers"):
        answer = make_teacher(kind, tmp_path, TargetSpec(k=8)).score([request])[0]
        assert len(answer.targets) == len(request.tokens)
        assert worst_difference(answer, make_oracle(tmp_path)(request.tokens)) < TOLERANCE
