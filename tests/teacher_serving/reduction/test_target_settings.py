"""Which targets a job gets: the mode that it names, or the default of its teacher."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cache.rows.spec import TargetSpec
from cluster.capture.settings import CaptureSettings
from teacher_serving.asking.settings import GenerationSettings
from teacher_serving.capture.start import describe
from teacher_serving.reduction.settings import TargetSettings

DEFAULT = TargetSpec("sampled", draws=50, systematic=True)
JOB = {"examples": "e.jsonl", "store": "s"}
SERVICE = {"kind": "endpoint", "endpoint": {"api": "openai", "top_logprobs": 5}}


@pytest.mark.parametrize(
    "given, expected",
    [
        ({}, DEFAULT),
        ({"of": "all", "entropy": True}, TargetSpec("sampled", draws=50, systematic=True, entropy=True)),
        ({"mode": "topk"}, TargetSpec("topk", 64)),
        ({"k": 7}, TargetSpec("topk", 7)),
        ({"temperatures": (2.0,)}, TargetSpec("topk", 64, temperatures=(2.0,))),
        ({"mass": 0.9, "temperatures": (2.0,)}, TargetSpec("nucleus", 64, mass=0.9, temperatures=(2.0,))),
        ({"mass": 0.9}, TargetSpec("nucleus", 64, mass=0.9)),
        ({"mass": 0.9, "k": 7}, TargetSpec("nucleus", 7, mass=0.9)),
        ({"threshold": 0.1}, TargetSpec("threshold", threshold=0.1)),
        ({"mode": "sampled"}, DEFAULT),
        ({"draws": 9}, TargetSpec("sampled", draws=9, systematic=True)),
        ({"systematic": False}, TargetSpec("sampled", draws=50)),
    ],
)
def test_a_key_of_one_mode_names_it(given: dict[str, Any], expected: TargetSpec) -> None:
    """Would catch a key that is given and has no effect, and `k = 64` that means anything but the top 64."""
    settings = TargetSettings(**given)
    assert settings.spec == expected
    assert TargetSettings(**settings.model_dump()) == settings, "a job that is written down and read again"


@pytest.mark.parametrize(
    "given, message",
    [
        ({"mass": 0.9, "draws": 3}, "draws has no effect: .* the mode is 'nucleus'"),
        ({"threshold": 0.1, "k": 3}, "k has no effect: .* the mode is 'threshold'"),
        ({"draws": 3, "step": 0.1}, "step has no effect: .* the mode is 'sampled'"),
        ({"mode": "topk", "systematic": False}, "systematic has no effect: .* the mode is 'topk'"),
        ({"draws": 3, "temperatures": (2.0,)}, "temperatures has no effect: .* the mode is 'sampled'"),
        ({"threshold": 0.1, "temperatures": (2.0,)}, "temperatures has no effect: .* the mode is 'threshold'"),
        ({"mode": "topk", "threshold": 0.1}, "threshold has no effect: .* the mode is 'topk'"),
    ],
)
def test_keys_of_two_modes_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TargetSettings(**given)


@pytest.mark.parametrize(
    "engine, expected",
    [
        ({"kind": "vllm"}, DEFAULT),
        ({"kind": "transformers"}, DEFAULT),
        ({"kind": "vllm", "reduction": "public"}, TargetSpec("topk", 64)),
        (SERVICE, TargetSpec("topk", 5)),
    ],
    ids=["vllm", "transformers", "public", "service"],
)
def test_the_default_is_what_the_teacher_can_give(
    tiny_model: Path, engine: dict[str, Any], expected: TargetSpec
) -> None:
    """Would catch a job without [targets] that a service, or vLLM's public interface, cannot run."""
    teacher = {"model": "m", "tokenizer": str(tiny_model)} if engine is SERVICE else {"model": str(tiny_model)}
    job = CaptureSettings.model_validate({**JOB, "engine": engine, "teacher": {**teacher, "max_tokens": 64}})
    generation = GenerationSettings(samples=1)
    spec = describe(job.teacher, job.engine, job.targets, generation, score=False).spec
    assert spec.targets == expected
