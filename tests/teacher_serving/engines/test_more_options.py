"""Arguments of vLLM that a job names itself: misspelt ones are refused, and those that change content are recorded."""

from pathlib import Path
from typing import Any

import pytest

from cache.errors import InputError
from cache.rows.spec import StoreSpec, TargetSpec
from teacher_serving.capture.start import describe
from teacher_serving.engines.settings import TeacherSettings
from teacher_serving.engines.vllm import VllmSettings
from teacher_serving.engines.vllm.llm_options import llm_options
from teacher_serving.engines.vllm.more_options import OF_SPEED, OWN
from teacher_serving.reduction.settings import TargetSettings
from tests.teacher_serving.engines.engines import make_oracle, make_requests, make_spec, make_teacher, worst_difference

pytestmark = pytest.mark.slow


def identity(model: Path, options: dict[str, Any]) -> StoreSpec:
    teacher = TeacherSettings(model=str(model), max_tokens=200)
    return describe(teacher, VllmSettings(options=options), TargetSettings(k=4), None).spec


def test_every_named_argument_is_one_of_vllm() -> None:
    """An upgrade of vLLM that drops one of them fails here."""
    from dataclasses import fields

    from vllm.engine.arg_utils import EngineArgs

    known = {item.name for item in fields(EngineArgs)}
    assert OF_SPEED - known == set()
    assert set(OWN) - known == set()
    assert not OF_SPEED & set(OWN)


def test_arguments_of_speed_leave_the_identity_alone_and_others_change_it(tiny_model: Path) -> None:
    plain = identity(tiny_model, {})
    assert "engine_options" not in plain.content
    assert identity(tiny_model, {"max_num_seqs": 3, "enforce_eager": True}) == plain
    changed = identity(tiny_model, {"kv_cache_dtype": "fp8", "max_num_seqs": 3})
    assert changed.engine_options == {"kv_cache_dtype": "fp8"} and changed.fingerprint != plain.fingerprint
    document = changed.to_document()
    assert StoreSpec.from_document(document, "spec.json") == changed
    assert StoreSpec.from_document(plain.to_document(), "spec.json") == plain
    with pytest.raises(Exception, match=r"engine_options.*kv_cache_dtype"):
        plain.require_same(changed, "here")


@pytest.mark.parametrize(
    "name, message",
    [
        ("enforce_eagr", "engine.options.enforce_eagr: this vLLM has no such argument; did you mean enforce_eager?"),
        ("dtype", "engine.options.dtype: logitbank sets this argument of vLLM; use teacher.dtype"),
        ("worker_extension_cls", "logitbank sets this argument of vLLM; leave it out"),
    ],
)
def test_other_arguments_are_refused_at_the_dry_run(tiny_model: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        identity(tiny_model, {name: "x"})


def test_an_argument_reaches_the_engine_and_rows_stay_right(tiny_model: Path) -> None:
    settings = TeacherSettings(model=str(tiny_model), dtype="float32", max_tokens=200)
    given = VllmSettings(options={"max_num_seqs": 3})
    assert (
        llm_options(str(tiny_model), settings, given, make_spec(tiny_model, TargetSpec(k=8)), False)["max_num_seqs"]
        == 3
    )
    teacher: Any = make_teacher("vllm", tiny_model, TargetSpec(k=8), options={"max_num_seqs": 3})
    assert teacher._llm.llm_engine.vllm_config.scheduler_config.max_num_seqs == 3
    oracle, requests = make_oracle(tiny_model), make_requests()
    for request, scored in zip(requests, teacher.score(requests), strict=True):
        assert worst_difference(scored, oracle(request.tokens)) < 2e-5
