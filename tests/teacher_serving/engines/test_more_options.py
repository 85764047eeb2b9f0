"""Arguments of vLLM that a job names itself: misspelt ones are refused, and those that change content are recorded."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from cache.errors import InputError
from cache.rows.spec import StoreSpec, TargetSpec
from teacher_serving.capture.start import describe
from teacher_serving.engines.settings import TeacherSettings
from teacher_serving.engines.vllm import VllmSettings
from teacher_serving.engines.vllm.llm_options import llm_options
from teacher_serving.engines.vllm.more_options import NOT_WHILE_WRITING_ON_A_CPU, OF_SPEED, REFUSED
from teacher_serving.engines.vllm.teacher import VllmTeacher
from teacher_serving.reduction.reducer import Reducer
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
    assert set(REFUSED) - known == set()
    assert set(NOT_WHILE_WRITING_ON_A_CPU) <= OF_SPEED
    assert not OF_SPEED & set(REFUSED)
    # Tables may have keys that change content, whatever their other keys do.
    assert not {name for name in OF_SPEED if name.endswith("_config")} - {"compilation_config"}


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
        ("dtype", "engine.options.dtype cannot be given: use teacher.dtype"),
        ("worker_extension_cls", "cannot be given: the workers of logitbank make the rows"),
        ("kv_sharing_fast_prefill", "cannot be given: .* so their rows are wrong"),
        ("tokens_only", "cannot be given: texts that end a response need the tokenizer"),
        ("hf_token", "cannot be given: use the environment variable HF_TOKEN"),
        ("model_loader_extra_config", "cannot be given: its values may be secret"),
        ("data_parallel_size", "cannot be given: engine.tensor_parallel, engine.pipeline_parallel and actors say"),
        ("_api_process_count", "cannot be given: it is private"),
    ],
)
def test_other_arguments_are_refused_at_the_dry_run(tiny_model: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        identity(tiny_model, {name: "x"})


@pytest.mark.parametrize("name", NOT_WHILE_WRITING_ON_A_CPU)
def test_prompts_are_not_split_where_a_teacher_writes_on_a_cpu(tiny_model: Path, name: str) -> None:
    """The engine would die in its first step. A job that scores may split them."""
    settings = TeacherSettings(model=str(tiny_model), dtype="float32", max_tokens=200)
    given = VllmSettings(options={name: 16})
    writes, scores = (make_spec(tiny_model, TargetSpec(k=8), generates) for generates in (True, False))
    with pytest.raises(InputError, match=rf"engine.options.{name}: vLLM cannot split prompts"):
        llm_options(str(tiny_model), settings, given, writes, False)
    assert llm_options(str(tiny_model), settings, given, scores, False)[name] == 16
    assert llm_options(str(tiny_model), settings, given, writes, True)[name] == 16
    eager = VllmSettings(options={"enforce_eager": False})
    assert llm_options(str(tiny_model), settings, eager, writes, False)["enforce_eager"] is True


def test_a_model_that_drafts_for_another_one_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "drafter")
    file = tmp_path / "drafter" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"speculators_config": {}}))
    with pytest.raises(InputError, match="drafts tokens for another model"):
        identity(tmp_path / "drafter", {})


def test_a_sampling_of_temperature_0_masks_nothing() -> None:
    """vLLM's sampler V2 reads raw logits then, and a top-p would mask them in place."""
    from vllm import SamplingParams

    params = SamplingParams(temperature=0, top_p=0.9, top_k=5, min_p=0.1)
    assert (params.top_p, params.top_k, params.min_p) == (1.0, 0, 0.0)


def test_ranks_whose_kernels_fail_let_the_others_reduce_alike() -> None:
    """Blocks of other sizes would let ranks wait for each other for ever."""
    calls: list[tuple[str, Any]] = []

    class Llm:
        def collective_rpc(self, name: str, args: Any = ()) -> list[Any]:
            calls.append((name, args))
            return {"logitbank_why_plain_torch": ["", "no memory"]}.get(name, ["", ""])

    teacher = VllmTeacher.__new__(VllmTeacher)
    teacher._llm, teacher._targets, teacher._vocab_size = Llm(), TargetSpec(k=8), 1000  # type: ignore[assignment]
    teacher._compare_with_public_logprobs = lambda: ""  # type: ignore[method-assign]
    assert teacher._install_reduction(VllmSettings()) == ""
    assert ("logitbank_use_torch", ("no memory",)) in calls
    one, other = Reducer(TargetSpec(k=64), 151_936), Reducer(TargetSpec(k=64), 151_936)
    for reducer in (one, other):
        reducer.use_torch(torch.device("cuda"), "no memory")
    assert one.block_rows(2, torch.device("cuda")) == other.block_rows(2, torch.device("cuda")) > 0
    assert one.why_plain_torch(torch.device("cuda")) == "no memory"


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
