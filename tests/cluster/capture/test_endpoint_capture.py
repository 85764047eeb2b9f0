"""A capture from a service gives a store or a message of one line, and never writes the key."""

import asyncio
import json
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from cache.errors import InputError
from cache.store.logit_store import LogitStore
from cluster.capture.actor import CaptureWorker
from cluster.capture.input.work import Work
from cluster.capture.settings import CaptureSettings
from cluster.commands.main import main
from cluster.runtime.job_file import load_job
from teacher_serving.capture.start import describe
from tests.cluster.capture.service_jobs import capture_units, job_at, start_worker, write_job
from tests.teacher_serving.engines.endpoint.endpoint_server import Call, Reply, failing_service, failure, message

KEY, VARIABLE = "sk-not-to-be-seen-1234567890", "LOGITBANK_TEST_KEY"


@pytest.fixture
def workplace(tmp_path: Path, tiny_model: Path) -> Path:
    words = ("one", "two", "three", "bad", "four", "five")
    (tmp_path / "examples.jsonl").write_text("".join(json.dumps({"prompt": f"say {w}"}) + "\n" for w in words))
    (tmp_path / "capture.toml").write_text(
        'examples = "examples.jsonl"\nstore = "stores/s"\nscore = false\nunit_size = 2\n'
        f'[teacher]\nmodel = "m"\ntokenizer = "{tiny_model}"\nmax_tokens = 200\n'
        f'[engine]\nkind = "endpoint"\n[engine.endpoint]\napi = "anthropic"\napi_key_env = "{VARIABLE}"\n'
        "top_logprobs = 0\nmax_retries = 1\nprice_input = 1000.0\nprice_output = 10000.0\n"
        "[generation]\nmax_new_tokens = 12\n"
    )
    return tmp_path


@pytest.fixture
def ray_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where Ray logs. Its sockets are there too, so the path must be short."""
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, KEY)


def files(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in folder.rglob("*") if path.is_file()]


@pytest.mark.slow
def test_a_key_that_stops_being_taken_ends_the_job_and_is_nowhere(
    workplace: Path, ray_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def reply(call: Call) -> Reply:
        if call.turn == "say five":
            time.sleep(2)  # until the unit before is written
            return failure(401, f"invalid x-api-key {KEY}")
        return failure(400, f"not with {KEY}") if call.turn == "say bad" else message("one two")

    root = ["--root", str(workplace)]
    with failing_service(reply) as (address, _):
        job = ["capture", str(workplace / "capture.toml"), "--set", f"engine.endpoint.base_url={address}"]
        assert main([*root, *job]) == 2
        captured = capsys.readouterr()
        assert main([*root, *job, "--dry-run"]) == 0
    line = captured.err.strip().splitlines()[-1]
    assert line == (
        f"logitbank: service {address}: rejected the API key (401); check environment variable {VARIABLE}, then run "
        "the same command again to continue (4 of 6 examples are captured and are not asked for again)"
    )
    assert "6 responses (0 truncated), 5 of them done; 1 to capture in 1 units" in capsys.readouterr().out
    assert any("worker" in path.name for path in files(ray_folder))
    assert KEY not in captured.out + captured.err
    for path in files(workplace, ray_folder):
        assert KEY.encode() not in path.read_bytes(), path
    # Four answers of 10 tokens read and 4 written, and a trial request after a refusal that could be the service's.
    log = json.loads((workplace / "stores" / "s.capture.json").read_text())
    assert log["runs"][-1]["cost"] == pytest.approx(0.25)
    assert main([*root, "snapshot", "stores/s"]) == 0
    store = LogitStore.open(str(workplace / "stores" / "s"))
    assert [record.tokenized.example.response for record in store] == ["one two"] * 4
    assert (store.spec.targets.k, store.info().rows, store.info().quarantined) == (0, 0, 1)
    capsys.readouterr()
    assert main([*root, "inspect", "stores/s"]) == 0
    assert "service        anthropic messages: text only; no scoring; no seed" in capsys.readouterr().out
    assert main([*root, "inspect", "stores/s", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes_per_token"] is None
    assert main([*root, "verify", "stores/s"]) == 0
    capsys.readouterr()
    assert main([*root, "inspect", "stores/s", "--example", store[0].key]) == 0
    assert "one" in capsys.readouterr().out, "the tokenizer is in the store"


def test_a_worker_reports_why_it_cannot_start(workplace: Path) -> None:
    with failing_service(lambda call: failure(404, "no model m")) as (address, _):
        change = [f"engine.endpoint.base_url={address}"]
        job = load_job(workplace / "capture.toml", change, CaptureSettings, workplace)
        described = describe(job.teacher, job.engine, job.targets, job.generation, job.score)
        worker = CaptureWorker(job, described, on_gpu=False)
    for call in (worker.ready, partial(worker.capture, [])):
        with pytest.raises(InputError, match=r"the service refused the request \(404\): no model m"):
            asyncio.run(call())


@pytest.mark.parametrize(
    "change, message",
    [
        ("engine.endpoint.api_key_env=sk-s3cret", "must be the name of an environment variable, not the key"),
        ("engine.endpoint.base_url=http://u:s3cret@host", "without user, password or query"),
        ("score=true", "cannot score given responses; set score = false"),
        ("engine.endpoint.requests_per_minute=9", "set actors = 1 and engine.endpoint.concurrency"),
        ("engine.kind=vllm", "unknown key 'engine.endpoint'"),
        ("engine.kind=vlm", "engine.kind: unknown engine kind 'vlm'; valid values: endpoint, transformers, vllm"),
    ],
)
def test_wrong_jobs_are_reported_in_one_line(
    workplace: Path, capsys: pytest.CaptureFixture[str], change: str, message: str
) -> None:
    command = ["--root", str(workplace), "capture", str(workplace / "capture.toml"), "--set", change]
    assert main([*command, *(["--set", "actors=2"] if "requests" in change else [])]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error and "s3cret" not in error


def test_the_progress_moves_with_each_answered_request(tmp_path: Path, tiny_model: Path) -> None:
    """A unit is in progress for long. What is answered of it is counted, one by one, refused examples included."""
    folder = write_job(tmp_path, tiny_model, [{"id": str(i), "prompt": f"say {i}"} for i in range(8)])
    may_answer = threading.Semaphore(1)

    def reply(call: Call) -> Reply:
        may_answer.acquire()
        return failure(413, "too long") if call.turn == "say 3" else message("one")

    async def watch(worker: CaptureWorker, work: Work) -> list[int]:
        capture, seen = asyncio.create_task(worker.capture(work.units, work.number, work.places)), []
        for answered in range(8):
            while await worker.examples_in_progress() < answered:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            seen.append(await worker.examples_in_progress())
            may_answer.release()
        assert (await capture).examples == 7
        return [*seen, await worker.examples_in_progress()]

    with failing_service(reply) as (address, _):
        worker, planned = start_worker(job_at(folder, address, "engine.endpoint.api=anthropic"))
        assert asyncio.run(watch(worker, planned.works[0])) == [*range(8), 0]


@pytest.mark.parametrize("good", [0, 1, 5])
def test_scores_of_a_server_that_fails_in_the_middle_are_kept(tmp_path: Path, tiny_model: Path, good: int) -> None:
    examples = [{"id": str(i), "prompt": f"say {i}", "response": "one two"} for i in range(8)]
    folder = write_job(tmp_path, tiny_model, examples)
    paid: Counter[str] = Counter()
    lock = threading.Lock()

    def reply(call: Call) -> Reply:
        prompt = call.body["prompt"]
        with lock:
            if len(prompt) > 4:
                if paid.total() >= limit:
                    return failure(400, "the engine core is not available")
                paid[str(prompt)] += 1
        entries = [None, *({str(token): {"logprob": -0.5}} for token in prompt[1:])]
        choice = {"prompt_logprobs": entries, "finish_reason": "length"}
        return Reply(body={"choices": [choice], "usage": {"prompt_tokens": len(prompt), "completion_tokens": 1}})

    changes = ["engine.endpoint.api=vllm", "engine.endpoint.top_logprobs=1", "score=true"]
    limit = good
    with failing_service(reply) as (address, _):
        job = job_at(folder, address, *changes).model_copy(update={"generation": None})
        first = capture_units(job)
        assert first[0].stopped and (first[0].examples, first[0].refused) == (good, 0)
        limit = 10**6
        second = capture_units(job)
    assert sum(summary.examples for summary in second) == 8 - good and set(paid.values()) == {1} and len(paid) == 8
