"""A service that begins to refuse in the middle ends the job; no paid answer is lost, and none is paid for twice."""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cache.storage.local import LocalStorage
from cache.store.logit_store import LogitStore
from cache.store.quarantine.entries import quarantined_keys
from cluster.commands.main import main
from tests.cluster.capture.service_jobs import capture_units, job_at, start_worker, write_job
from tests.teacher_serving.engines.endpoint.endpoint_server import (
    Call,
    Reply,
    completion,
    failing_service,
    message,
)

EXAMPLES, UNIT, GOOD = 24, 8, 11


def error(status: int, text: str, kind: str = "invalid_request_error", code: str | None = None) -> Reply:
    return Reply(status, {"error": {"message": text, "type": kind, "code": code}})


def unpaid(reply: Reply) -> Reply:
    return Reply(reply.status, {**reply.body, "usage": None})


# What services answer once they are out of credit, have unloaded the model, or fail: as documented by each.
REFUSALS = {
    "openai quota": error(429, "You exceeded your current quota", "insufficient_quota", "insufficient_quota"),
    "openai billing": error(400, "Billing hard limit has been reached", code="billing_hard_limit_reached"),
    "anthropic credit": error(
        400, "Your credit balance is too low to access the Anthropic API. Go to Plans & Billing."
    ),
    "deepseek balance": error(402, "Insufficient Balance", "unknown_error"),
    "alibaba arrears": error(400, "Access denied, make sure your account is in good standing.", code="Arrearage"),
    "gemini key": error(400, "API key not valid. Please pass a valid API key.", code="INVALID_ARGUMENT"),
    "key withdrawn": error(401, "Incorrect API key provided"),
    "forbidden": error(403, "You are not allowed to sample from this model"),
    "model unloaded": error(404, "The model `m` does not exist"),
    "model overloaded": error(400, "model overloaded, please try again later"),
    "model not loaded": error(400, "Model is not loaded"),
    "unknown reason": error(400, "E-1234"),
    "unknown reason, 422": error(422, "E-1234"),
    "limit that lasts": error(429, "Rate limit reached", "requests"),
    "failure that lasts": Reply(503, {"detail": "upstream"}),
    "page of a proxy": Reply(502, "<html>Bad gateway</html>"),
    "moved": Reply(307, {}, {"location": "/elsewhere"}),
    "error with status 200": Reply(200, {"error": {"code": 402, "message": "Insufficient credits"}}),
    "failure with status 200": Reply(200, {"error": {"code": 503, "message": "no instances available"}}),
    "interrupted": completion("one", finish_reason="insufficient_system_resource"),
    "no choices any more": Reply(200, {"id": "x", "object": "chat.completion", "choices": []}),
    "connection lost": Reply(0),
    "no text any more": unpaid(completion("")),
    "null as text": unpaid(completion("", message={"role": "assistant", "content": None})),
    "text instead of JSON": Reply(200, "plain text"),
}


class Service:
    """Answers `good` requests, then refuses all. answered: how often each turn got an answer."""

    def __init__(self, refusal: Reply, good: int, answer: Callable[[str], Reply]) -> None:
        self.refusal, self.good, self._answer = refusal, good, answer
        self.answered: Counter[str] = Counter()
        self._lock = threading.Lock()

    def reply(self, call: Call) -> Reply:
        with self._lock:
            is_trial = call.turn == "Say yes."
            if self.answered.total() >= self.good:
                return self.refusal
            if not is_trial:
                self.answered[call.turn] += 1
            return self._answer(call.turn)


def examples(count: int) -> list[dict[str, Any]]:
    return [{"id": f"e{i}", "prompt": f"say {'one ' * (i % 7)}{i}"} for i in range(count)]


@pytest.fixture
def workplace(tmp_path: Path, tiny_model: Path) -> Path:
    return write_job(tmp_path, tiny_model, examples(EXAMPLES), UNIT)


@pytest.mark.parametrize(
    "api, name",
    [("openai", name) for name in REFUSALS]
    + [("anthropic", name) for name in ("anthropic credit", "unknown reason", "interrupted")],
)
def test_a_refusal_of_all_loses_no_paid_answer(workplace: Path, name: str, api: str) -> None:
    answer = completion if api == "openai" else message
    service = Service(REFUSALS[name], GOOD, lambda turn: answer("one two"))
    if (api, name) == ("anthropic", "interrupted"):
        service.refusal = Reply(200, {"type": "message", "content": None, "stop_reason": None})
    with failing_service(service.reply) as (address, _):
        job = job_at(workplace, address, f"engine.endpoint.api={api}")
        first = capture_units(job)
        assert first[-1].stopped.startswith(f"service {address}: ") and "\n" not in first[-1].stopped
        assert sum(summary.examples for summary in first) == service.answered.total() == GOOD
        assert not quarantined_keys(LocalStorage(workplace / "s"))
        cost = sum(summary.cost for summary in first)
        service.good = 10**6
        second = capture_units(job)
    assert not any(summary.stopped for summary in second)
    assert sum(summary.examples for summary in second) == EXAMPLES - GOOD
    assert len(service.answered) == EXAMPLES and set(service.answered.values()) == {1}
    assert not quarantined_keys(LocalStorage(workplace / "s"))
    assert len(LogitStore.open(str(workplace / "s"), unpinned=True)) == EXAMPLES
    # Each answer has 10 tokens read and 4 written.
    assert cost == pytest.approx(GOOD * 0.05)
    assert sum(summary.cost for summary in second) == pytest.approx((EXAMPLES - GOOD) * 0.05)


@pytest.mark.parametrize(
    "reply, reason",
    [
        (error(400, "flagged by the content policy", code="content_policy_violation"), "content policy"),
        (
            error(400, "This model's maximum context length is 9 tokens", code="context_length_exceeded"),
            "context length",
        ),
        (error(403, "Your input was flagged by moderation"), "moderation"),
        (error(413, "Request too large", "request_too_large"), "too large"),
        (error(400, "Invalid schema for function 'f'", code="invalid_function_parameters"), "Invalid schema"),
        (error(400, "E-1234"), "E-1234"),
        (error(422, "E-1234"), "E-1234"),
        (completion("", finish_reason="content_filter"), "content filter"),
        (completion("", message={"role": "assistant", "content": None}), "no text"),
        (Reply(200, {"choices": []}), "form of its API"),
    ],
)
def test_a_refusal_of_one_example_goes_to_quarantine_alone(workplace: Path, reply: Reply, reason: str) -> None:
    bad = {f"say {'one ' * (i % 7)}{i}" for i in range(5, EXAMPLES, 7)}
    with failing_service(lambda call: reply if call.turn in bad else completion("one")) as (address, calls):
        summaries = capture_units(job_at(workplace, address))
    info = LogitStore.open(str(workplace / "s"), unpinned=True).info()
    assert not any(summary.stopped for summary in summaries)
    assert (info.examples, info.quarantined) == (EXAMPLES - len(bad), len(bad))
    assert len(info.quarantine) == 1 and reason in next(iter(info.quarantine))
    trials = [call for call in calls if call.turn == "Say yes."]
    assert len(trials) <= 1 + len(bad)


def test_the_hour_of_a_failure_does_not_matter(workplace: Path) -> None:
    """Whatever number of answers there is before the failure, the rerun asks for the others alone."""
    for good in (0, UNIT - 1, UNIT, EXAMPLES - 1):
        service = Service(REFUSALS["unknown reason"], 10**6, lambda turn: completion("one"))
        with failing_service(service.reply) as (address, _):
            job = job_at(workplace, address, f"store=s{good}")
            worker, planned = start_worker(job)
            service.good = good
            stops = [asyncio.run(worker.capture(each.units)).stopped for each in planned.works]
            assert stops[-1] and sorted(map(bool, stops)) == list(map(bool, stops)), "once stopped, it stays stopped"
            service.good = 10**6
            capture_units(job)
        assert len(service.answered) == EXAMPLES and set(service.answered.values()) == {1}
        assert len(LogitStore.open(str(workplace / f"s{good}"), unpinned=True)) == EXAMPLES


@pytest.mark.slow
def test_the_command_ends_with_one_line_and_continues(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workplace = write_job(tmp_path, tiny_model, examples(120))
    service = Service(REFUSALS["deepseek balance"], 61, lambda turn: completion("one two"))
    with failing_service(service.reply) as (address, _):
        command = ["--root", str(workplace), "capture", str(workplace / "capture.toml")]
        command += ["--set", f"engine.endpoint.base_url={address}", "--set", "actors=2", "--set", "unit_size=25"]
        assert main(command) == 2
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert line == (
            f"logitbank: service {address}: the account has no credit left (402): Insufficient Balance; add credit, "
            "then run the same command again to continue (61 of 120 examples are captured and are not asked for again)"
        )
        assert main(["--root", str(workplace), "status", "s"]) == 0
        shown = capsys.readouterr().out
        assert "61 of 120 examples answered" in shown and "no credit left" in shown
        service.good = 10**6
        assert main(command) == 0
        assert "120 of this job in " in capsys.readouterr().out
    assert len(service.answered) == 120 and set(service.answered.values()) == {1}
    log = json.loads((workplace / "s.capture.json").read_text())
    assert sum(run["cost"] for run in log["runs"]) == pytest.approx(120 * 0.05)
    assert not quarantined_keys(LocalStorage(workplace / "s"))
