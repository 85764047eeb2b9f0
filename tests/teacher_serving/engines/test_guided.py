"""Responses follow a JSON schema, and their rows are those of the teacher without the schema."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cache.examples.tokenizers import decode, load_tokenizer
from cache.json_documents import canonical_json
from cache.rows.spec import SamplingSpec, TargetSpec
from teacher_serving.asking.requests import continuation_request
from teacher_serving.engines.settings import TeacherSettings
from teacher_serving.engines.vllm import VllmSettings
from teacher_serving.teacher import Request
from tests.teacher_serving.engines.engines import make_oracle, make_spec, start_vllm

pytestmark = pytest.mark.slow

SCHEMA = {
    "type": "object",
    "properties": {"age": {"enum": [7, 8]}},
    "required": ["age"],
    "additionalProperties": False,
}
FREE = SamplingSpec(1, 1.0, 1.0, 24, 0, "")
GUIDED = replace(FREE, json_schema=canonical_json(SCHEMA))


def test_vllm_follows_a_schema_and_gives_rows_without_it(tiny_model: Path) -> None:
    spec = replace(make_spec(tiny_model, TargetSpec(k=8)), sampling=GUIDED)
    teacher = start_vllm(
        tiny_model, TeacherSettings(model=str(tiny_model), dtype="float32", max_tokens=100), VllmSettings(), spec
    )
    tokenizer = load_tokenizer(tiny_model)
    requests = [Request(f"{i:032x}", np.arange(5 + i, 12 + i, dtype=np.uint32)) for i in range(3)]
    answers = teacher.generate(requests, GUIDED)
    # Without white space, so that a model of random weights cannot write any for ever.
    texts = [decode(answer.tokens, tokenizer) for answer in answers]
    assert set(texts) <= {'{"age":7}', '{"age":8}'} and all(answer.finished for answer in answers)
    oracle = make_oracle(tiny_model)
    for request, answer in zip(requests, answers, strict=True):
        continued = continuation_request(request, answer.tokens)
        log_p = oracle(continued.tokens)[continued.rows]
        own = log_p.gather(1, torch.from_numpy(answer.tokens.astype(np.int64))[:, None])[:, 0].numpy()
        assert np.abs(answer.token_logprobs - own).max() < 2e-5
    assert "JSON schema" in teacher.rows_from
