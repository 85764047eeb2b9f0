"""The content of a capture from a service is known before the first request; impossible settings are refused."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from transformers import AutoTokenizer

from cache.errors import InputError
from cache.examples.tokenizers import tokenizer_digest
from cache.rows.spec import TargetSpec
from teacher_serving.asking.settings import GenerationSettings
from teacher_serving.capture.start import describe
from teacher_serving.engines.description import TeacherDescription
from teacher_serving.engines.endpoint import EndpointEngineSettings
from teacher_serving.engines.endpoint.settings import EndpointSettings
from teacher_serving.engines.registry import ENGINES
from teacher_serving.engines.settings import EngineSettings, TeacherSettings
from teacher_serving.engines.vllm import VllmSettings
from teacher_serving.reduction.settings import TargetSettings

CHAT = {"api": "openai", "top_logprobs": 20}
VLLM = {"api": "vllm", "top_logprobs": 64, "base_url": "http://host:8000/v1"}
CLAUDE = {"api": "anthropic", "top_logprobs": 0}


def engine(endpoint: dict[str, Any]) -> EngineSettings:
    return EndpointEngineSettings(endpoint=EndpointSettings(**endpoint))


def described(
    model: Path | None,
    endpoint: dict[str, Any],
    score: bool = False,
    teacher: dict[str, Any] | None = None,
    targets: dict[str, Any] | None = None,
    generation: dict[str, Any] | None = None,
) -> TeacherDescription:
    settings = TeacherSettings(model="gpt-x", tokenizer=str(model) if model else None, **(teacher or {}))
    asked = GenerationSettings(**(generation or {}))
    return describe(settings, engine(endpoint), TargetSettings(**(targets or {})), asked, score)


@pytest.mark.parametrize(
    "endpoint, targets, expected, service",
    [
        (
            CHAT,
            {},
            TargetSpec("topk", 20),
            "openai chat completions: at most 20 log-probabilities, by bytes; no scoring",
        ),
        (CHAT, {"k": 5}, TargetSpec("topk", 5), "at most 20 log-probabilities"),
        (
            CHAT | {"top_logprobs": 0},
            {},
            TargetSpec("topk", 0),
            "openai chat completions: text only; no scoring; no seed",
        ),
        (CLAUDE, {}, TargetSpec("topk", 0), "anthropic messages: text only; no scoring; no seed"),
        (VLLM, {"mode": "nucleus", "mass": 0.9}, TargetSpec("nucleus", 64, mass=0.9), "vllm completions: "),
    ],
)
def test_a_store_records_what_its_service_returns(
    tiny_model: Path, endpoint: dict[str, Any], targets: dict[str, Any], expected: TargetSpec, service: str
) -> None:
    found = described(tiny_model, {**endpoint, "revision": "2024-08"}, targets=targets)
    spec, tokenizer = found.spec, AutoTokenizer.from_pretrained(tiny_model)
    assert found.folder is None and spec.targets == expected and service in spec.service
    assert (spec.weights, spec.dtype) == (f"service:{endpoint['api']}:gpt-x:2024-08", "unknown")
    assert spec.vocab_size == spec.tokenizer_size == len(tokenizer)
    assert spec.tokenizer == tokenizer_digest(tokenizer)
    assert "host" not in str(spec.content) and "KEY" not in str(spec.content)


def test_the_distribution_of_draws_at_other_temperatures_is_declared(tiny_model: Path) -> None:
    warm = described(tiny_model, CHAT, generation={"temperature": 0.7}).spec
    assert warm.service.endswith("log-probabilities as told at temperature 0.7, top-p 1.0")


def test_speed_is_no_part_of_the_fingerprint_and_the_model_is(tiny_model: Path) -> None:
    spec = described(tiny_model, VLLM).spec
    quick = VLLM | {"concurrency": 64, "requests_per_minute": 60, "price_input": 1.0, "base_url": "http://other/v1"}
    assert described(tiny_model, quick).spec.fingerprint == spec.fingerprint
    other = describe(
        TeacherSettings(model="gpt-y", tokenizer=str(tiny_model)),
        engine(VLLM),
        TargetSettings(),
        GenerationSettings(),
        False,
    )
    assert other.spec.fingerprint != spec.fingerprint


@pytest.mark.parametrize(
    "endpoint, options, message",
    [
        (CHAT, {"score": True}, '"openai": this service cannot score given responses; set score = false'),
        (CLAUDE, {"score": True}, '"anthropic": this service cannot score given responses; set score = false'),
        (VLLM | {"top_logprobs": 0}, {"score": True}, "top_logprobs = 0 stores nothing of a scored response; raise it"),
        (CHAT, {"generation": {"keep": "rationalize"}}, '"rationalize" scores responses, which .* cannot'),
        (CHAT, {"targets": {"of": "all"}}, 'targets.of = "all": .* cannot score a prompt'),
        (CHAT, {"targets": {"k": 21}}, "targets.k = 21 is more than engine.endpoint.top_logprobs = 20; lower it"),
        (CLAUDE, {"targets": {"k": 1}}, "top_logprobs = 0 captures text only"),
        (CLAUDE, {"targets": {"mode": "nucleus", "mass": 0.9}}, "top_logprobs = 0 captures text only"),
        (VLLM, {"targets": {"mode": "sampled", "draws": 8}}, 'targets.mode = "sampled" .* the whole distribution'),
        (VLLM, {"targets": {"mode": "threshold", "threshold": 0.1}}, 'targets.mode = "threshold" .*; use "topk"'),
        (VLLM, {"targets": {"entropy": True}}, "targets.entropy: a service does not return the whole distribution"),
        (VLLM, {"targets": {"temperatures": (2.0,)}}, "targets.temperatures: a service does not return"),
        (CHAT, {"teacher": {"truncation": "left"}}, 'teacher.truncation = "left": the service reads whole turns'),
        (VLLM, {"teacher": {"lora_path": "x"}}, "teacher.lora_path: the service decides"),
        (VLLM, {"teacher": {"dtype": "float32"}}, 'teacher.dtype = "float32": the dtype of a service is unknown'),
        (CLAUDE, {"generation": {"temperature": 1.5}}, "temperature = 1.5: anthropic accepts at most 1.0; lower it"),
    ],
)
def test_what_a_service_cannot_give_is_refused(
    tiny_model: Path, endpoint: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as raised:
        described(tiny_model, endpoint, **options)
    assert "\n" not in str(raised.value)


def test_the_tokenizer_is_required_only_where_it_is_needed(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"teacher\.tokenizer is missing: an endpoint needs"):
        described(None, CHAT)
    with pytest.raises(InputError, match=f"teacher.tokenizer '{tmp_path}': cannot be loaded"):
        described(tmp_path, CHAT)
    teacher = TeacherSettings(model=str(tiny_model), tokenizer=str(tiny_model))
    with pytest.raises(InputError, match=r'is for engine\.kind = "endpoint"; a model has its own: leave it out'):
        describe(teacher, VllmSettings(), TargetSettings(k=8), None)


@pytest.mark.parametrize(
    "endpoint, message",
    [
        ({"api": "vllm", "top_logprobs": 5}, 'api = "vllm" needs the server\'s base_url'),
        (CHAT | {"top_logprobs": 21}, "at most 20 log-probabilities; lower top_logprobs"),
        (CLAUDE | {"top_logprobs": 1}, "returns no log-probabilities; set top_logprobs = 0"),
        (CHAT | {"base_url": "https://user:s3cret@host/v1"}, "without user, password or query"),
        (CHAT | {"base_url": "https://host/v1?key=s3cret"}, "without user, password or query"),
        (CHAT | {"base_url": "host/v1"}, r"base_url must be http\(s\)://host"),
        (CHAT | {"api_key_env": "sk-s3cret"}, "must be the name of an environment variable, not the key"),
    ],
)
def test_settings_that_no_service_has_are_refused(endpoint: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message) as raised:
        EndpointSettings(**endpoint)
    assert all("s3cret" not in error["msg"] for error in raised.value.errors())


def test_a_key_goes_to_the_service_that_it_is_for() -> None:
    assert EndpointSettings(**CHAT).key_variable == "OPENAI_API_KEY"
    assert EndpointSettings(**CLAUDE).key_variable == "ANTHROPIC_API_KEY"
    assert EndpointSettings(**VLLM).key_variable is None
    assert EndpointSettings(**CHAT, base_url="https://elsewhere/v1").key_variable is None
    assert EndpointSettings(**CHAT, base_url="https://elsewhere/v1", api_key_env="THEIRS").key_variable == "THEIRS"


def test_an_endpoint_needs_no_gpu_and_no_environment_of_vllm() -> None:
    assert engine(CHAT).gpus == 0 and VllmSettings(tensor_parallel=2).gpus == 2
    assert ENGINES["endpoint"].environment(engine(CHAT), on_gpu=False) == {}


def test_an_engine_takes_its_own_keys_only() -> None:
    with pytest.raises(ValidationError, match="endpoint\n  Field required"):
        EndpointEngineSettings.model_validate({})
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        VllmSettings.model_validate({"endpoint": CHAT})
