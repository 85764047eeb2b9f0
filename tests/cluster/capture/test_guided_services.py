"""A JSON schema reaches each service in the form of its API, and its answers are read as JSON text."""

import json
from pathlib import Path
from typing import Any

import pytest

from cache.errors import InputError
from cache.store.logit_store import LogitStore
from cluster.capture.planning import plan_job
from tests.cluster.capture.service_jobs import capture_units, job_at, write_job
from tests.teacher_serving.engines.endpoint.endpoint_server import Call, Reply, completion, failing_service

SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
WRITTEN = {"age": 7}
GUIDED = "generation.json_schema=schema.json"


@pytest.fixture
def workplace(tmp_path: Path, tiny_model: Path) -> Path:
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    return write_job(tmp_path, tiny_model, [{"id": "e", "prompt": "say 7 in JSON"}])


def reply(call: Call) -> Reply:
    if call.path.endswith("/messages"):
        name = call.body["tool_choice"]["name"]
        blocks = [{"type": "text", "text": "Sure."}, {"type": "tool_use", "id": "t", "name": name, "input": WRITTEN}]
        return Reply(body={"type": "message", "content": blocks, "stop_reason": "tool_use", "usage": {}})
    return completion(json.dumps(WRITTEN))


@pytest.mark.parametrize(
    "changes, key, sent",
    [
        (
            ("engine.endpoint.api=openai",),
            "response_format",
            {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": SCHEMA}},
        ),
        (
            ("engine.endpoint.api=openai", "engine.endpoint.schema_form=json_object"),
            "response_format",
            {"type": "json_object"},
        ),
        (
            ("engine.endpoint.api=anthropic",),
            "tools",
            [{"name": "answer", "description": "Takes the answer.", "input_schema": SCHEMA}],
        ),
    ],
    ids=["schema", "object", "tool"],
)
def test_each_service_gets_its_form(workplace: Path, changes: tuple[str, ...], key: str, sent: Any) -> None:
    with failing_service(reply) as (address, calls):
        capture_units(job_at(workplace, address, GUIDED, *changes))
    assert len(calls) == 2 and all(call.body[key] == sent for call in calls)
    # Services that write any JSON object refuse a prompt that does not speak of JSON.
    assert all("JSON" in call.turn for call in calls)
    store = LogitStore.open(str(workplace / "s"), unpinned=True)
    (example,) = store.texts(slice(None))
    assert json.loads(example.response) == WRITTEN and example.metadata["finished"]
    assert json.loads(store.spec.sampling.json_schema) == SCHEMA  # type: ignore[union-attr]


def test_without_a_schema_nothing_is_sent_and_fingerprints_stay(workplace: Path) -> None:
    with failing_service(reply) as (address, calls):
        free = plan_job(job_at(workplace, address)).job.description.spec
        guided = plan_job(job_at(workplace, address, GUIDED)).job.description.spec
        capture_units(job_at(workplace, address))
    assert not {"response_format", "tools"} & set(calls[0].body)
    assert "json_schema" not in free.to_document()["spec"]["sampling"] and free.fingerprint != guided.fingerprint


@pytest.mark.parametrize(
    "text, message",
    [
        (None, "no such file; give a file with a JSON schema"),
        ("{", "is not JSON"),
        ("[1]", "is no JSON schema; give an object"),
        ('{"a": 1}', "is no JSON schema; give an object"),
    ],
)
def test_a_file_that_is_no_schema_is_named(workplace: Path, text: str | None, message: str) -> None:
    (workplace / "schema.json").unlink()
    if text is not None:
        (workplace / "schema.json").write_text(text)
    with pytest.raises(InputError, match=rf"json_schema .*schema.json: {message}"):
        plan_job(job_at(workplace, "http://127.0.0.1:9", GUIDED))


def test_an_engine_that_cannot_guide_refuses(workplace: Path, tiny_model: Path) -> None:
    (workplace / "local.toml").write_text(
        f'examples = "examples.jsonl"\nstore = "s"\nscore = false\n[teacher]\nmodel = "{tiny_model}"\n'
        "max_tokens = 100\n"
        '[engine]\nkind = "transformers"\n[generation]\nmax_new_tokens = 9\njson_schema = "schema.json"\n'
    )
    from cluster.capture.settings import CaptureSettings
    from cluster.runtime.job_file import load_job

    with pytest.raises(InputError, match="cannot guide its decoding"):
        plan_job(load_job(workplace / "local.toml", [], CaptureSettings, workplace))
