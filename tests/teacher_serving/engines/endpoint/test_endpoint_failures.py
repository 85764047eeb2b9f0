"""Failures of services: some end the job, some refuse one example, and no message contains the key."""

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from cache.errors import InputError, LogitbankError
from cache.examples.tokenizers import Tokenizer, decode
from cache.rows.spec import SamplingSpec, StoreSpec, TargetSpec
from teacher_serving.engines.endpoint.rate_limit import RateLimit
from teacher_serving.engines.endpoint.settings import EndpointSettings
from teacher_serving.engines.endpoint.teacher import EndpointTeacher
from teacher_serving.engines.settings import TeacherSettings
from teacher_serving.teacher import Generated, Request, TeacherStoppedError
from tests.teacher_serving.engines.endpoint.endpoint_server import (
    Call,
    Reply,
    completion,
    failing_service,
    failure,
    message,
)

KEY, VARIABLE = "sk-not-to-be-seen-1234567890", "LOGITBANK_TEST_KEY"
SAMPLING = SamplingSpec(1, 1.0, 1.0, 12, 0, "")


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Tokenizer:
    loaded: Tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    return loaded


def make(
    base_url: str,
    tokenizer: Tokenizer,
    api: str = "openai",
    k: int = 0,
    sampling: SamplingSpec = SAMPLING,
    template_variables: dict[str, Any] | None = None,
    **more: Any,
) -> EndpointTeacher:
    given = {"api": api, "base_url": base_url, "api_key_env": VARIABLE, "top_logprobs": k, "max_retries": 2, **more}
    endpoint = EndpointSettings.model_validate(given)
    assert KEY not in repr(endpoint) + endpoint.model_dump_json()
    width = len(tokenizer)  # type: ignore[arg-type]
    spec = StoreSpec("m", "w", "t", "c", width, width, "unknown", TargetSpec("topk", k), sampling, service="a service")
    spec = replace(spec, chat_template_kwargs=template_variables or {})
    return EndpointTeacher(TeacherSettings(model="m"), endpoint, spec, tokenizer)


def ask(*turns: str, roles: tuple[str, ...] = ("user",)) -> list[Request]:
    """One request for each text, after turns of the other roles."""
    others = tuple({"role": role, "content": f"a {role}'s turn"} for role in roles[:-1])
    return [
        Request(f"{i:032x}", np.arange(1, 5, dtype=np.uint32), messages=(*others, {"role": roles[-1], "content": turn}))
        for i, turn in enumerate(turns)
    ]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Any:
    """The key is set, and is in no log whatever a test does."""
    monkeypatch.setenv(VARIABLE, KEY)
    caplog.set_level(logging.DEBUG)
    yield
    assert KEY not in caplog.text


def test_requests_to_a_busy_service_are_repeated(tokenizer: Tokenizer) -> None:
    first = iter([failure(429, "slow down", retry_after="1"), failure(500, "oops")])

    def reply(call: Call) -> Reply:
        return completion("yes") if call.turn == "Say yes." else next(first, completion("one two"))

    with failing_service(reply) as (address, calls):
        teacher = make(address, tokenizer)
        start = time.monotonic()
        one = teacher.generate(ask("say one two"), SAMPLING)[0]
        assert time.monotonic() - start > 1.0, "as long as the service asked for"
        assert decode(one.tokens, tokenizer) == "one two" and one.finished
        assert one.tokens[-1] == tokenizer.eos_token_id and len(one.rows) == len(one.tokens)
        assert np.isnan(one.token_logprobs).all() and len(one.rows.ids) == 0
        assert len(calls) == 4 and all(call.headers["authorization"] == f"Bearer {KEY}" for call in calls)
        assert calls[-1].body["messages"] == [{"role": "user", "content": "say one two"}]
        assert "logprobs" not in calls[-1].body and calls[-1].body["max_tokens"] == 12


def test_one_example_that_is_refused_does_not_stop_the_others(tokenizer: Tokenizer) -> None:
    replies = {
        "bad": failure(400, f"your key {KEY} may not ask that"),
        "long": failure(413, "x" * 5000),
        "filtered": completion("", finish_reason="content_filter"),
        "declined": completion("", message={"role": "assistant", "content": None, "refusal": "I would rather not"}),
        "tool": completion("", message={"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}),
        "silent": completion(""),
        "choiceless": Reply(body={"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 0}}),
        "cut": completion("one two", finish_reason="length"),
    }
    with failing_service(lambda call: replies.get(call.turn, completion("yes"))) as (address, calls):
        teacher = make(address, tokenizer, price_input=1000.0, price_output=10000.0)
        before = teacher.usage
        answers = dict(zip([*replies, "good"], teacher.generate(ask(*replies, "good"), SAMPLING), strict=True))
        spent = teacher.usage
    reasons = {name: answer.refusal for name, answer in answers.items()}
    assert reasons["bad"] == "the service refused the request (400): your key [key] may not ask that"
    assert len(reasons["long"]) < 400
    assert reasons["filtered"] == "the service declined: content filter"
    assert reasons["declined"] == "the service declined: I would rather not"
    assert "called a tool" in reasons["tool"] and reasons["silent"] == "the service returned no text"
    assert "not have the form of its API" in reasons["choiceless"]
    assert not reasons["good"] and not reasons["cut"]
    assert answers["good"].finished and not answers["cut"].finished
    assert answers["cut"].tokens[-1] != tokenizer.eos_token_id
    paid = [call for call in calls[before.requests :] if call.turn not in ("bad", "long")]
    assert spent.requests - before.requests == len(paid), "what is refused with an error is not paid"
    # One answer reports 1 and 0 tokens, all others 10 tokens read and 4 written.
    tokens = 1 + 10 * (len(paid) - 1), 4 * (len(paid) - 1)
    assert spent.prompt_tokens - before.prompt_tokens == tokens[0]
    assert spent.completion_tokens - before.completion_tokens == tokens[1]
    assert spent.cost - before.cost == pytest.approx((tokens[0] * 1000 + tokens[1] * 10000) / 1e6)


@pytest.mark.parametrize(
    "reply, message",
    [
        (
            failure(401, f"Incorrect key {KEY}"),
            rf"rejected the API key \(401\); check environment variable {VARIABLE}, then",
        ),
        (failure(403, f"{KEY} may not use it"), r"the service refused the request \(403\): \[key\] may not use it"),
        (failure(402, "no money left"), r"has no credit left \(402\): no money left; add credit, then run"),
        (failure(429, "slow down", retry_after_ms="1"), r"still limits requests after 3 tries \(429\): slow down; run"),
        (failure(503, f"{KEY} failed", retry_after_ms="1"), r"failed \(503\): \[key\] failed; run the job again"),
        (Reply(200, f"<html>hello {KEY}</html>"), r"is not a JSON object; check engine\.endpoint\.base_url"),
        (Reply(200, "{half", {"content-type": "application/json"}), r"not a JSON object"),
        (Reply(200, [1, 2]), r"not a JSON object"),
    ],
    ids=["401", "403", "402", "429", "503", "html", "half", "list"],
)
@pytest.mark.parametrize("api", ["openai", "anthropic"])
def test_what_is_wrong_for_all_ends_the_job_in_one_line_without_the_key(
    tokenizer: Tokenizer, api: str, reply: Reply, message: str
) -> None:
    with failing_service(lambda call: reply) as (address, _), pytest.raises(LogitbankError, match=message) as raised:
        make(address, tokenizer, api)
    assert KEY not in str(raised.value) and "\n" not in str(raised.value)
    assert raised.value.__cause__ is None and raised.value.__context__ is None, "the library's error may hold the key"


def turn_number(call: Call) -> int:
    return int(call.turn)


def test_an_error_among_many_requests_ends_them_all(tokenizer: Tokenizer) -> None:
    replies = {"Say yes.": completion("yes"), "7": failure(401, KEY)}
    with failing_service(lambda call: replies.get(call.turn, completion("yes"))) as (address, calls):
        teacher = make(address, tokenizer, concurrency=2)
        with pytest.raises(TeacherStoppedError, match="rejected the API key") as raised:
            teacher.generate(ask(*map(str, range(200))), SAMPLING)
        assert len(calls) < 100
        answered = [i for i, answer in enumerate(raised.value.answers) if answer is not None]
        assert answered == [int(call.turn) for call in sorted(calls[1:], key=turn_number) if call.turn != "7"]
        with pytest.raises(TeacherStoppedError, match="rejected the API key"):
            teacher.generate(ask("one more"), SAMPLING)
        assert calls[-1].turn != "one more", "no request is sent to a service that has failed"


def test_a_service_that_refuses_even_the_first_words_is_not_used(tokenizer: Tokenizer) -> None:
    with (
        failing_service(lambda call: failure(404, "no model m")) as (address, _),
        pytest.raises(InputError, match=r"the service refused the request \(404\): no model m"),
    ):
        make(address, tokenizer)
    with (
        failing_service(lambda call: completion("yes")) as (address, _),
        pytest.raises(InputError, match=r"returns no log-probabilities; set engine\.endpoint\.top_logprobs = 0"),
    ):
        make(address, tokenizer, k=5)


def test_newer_models_of_openai_get_the_newer_parameter_name(tokenizer: Tokenizer) -> None:
    def reply(call: Call) -> Reply:
        return failure(400, "use 'max_completion_tokens'") if "max_tokens" in call.body else completion("yes")

    with failing_service(reply) as (address, calls):
        assert not make(address, tokenizer).generate(ask("say yes"), SAMPLING)[0].refusal
        assert calls[-1].body["max_completion_tokens"] == 12


def test_tokens_given_as_bytes_become_rows(tokenizer: Tokenizer) -> None:
    def token_entry(text: str, logprob: float, *others: tuple[str, float]) -> dict[str, Any]:
        top = [{"token": t, "bytes": list(t.encode()), "logprob": p} for t, p in ((text, logprob), *others)]
        return {**top[0], "top_logprobs": top}

    known = [
        token_entry(" one", -0.5, (" two", -1.5), (" no such token", -2.0)),
        token_entry(" two", -3.0, (" one", -0.1)),
    ]
    foreign = [token_entry(" one two", -0.5), token_entry(" one", -0.2)]
    replies = {
        "known": completion(" one two", logprobs={"content": known}),
        "foreign": completion(" one two one", logprobs={"content": foreign}),
        "other text": completion("one  two", logprobs={"content": known}),
        "broken": completion(" one two", logprobs={"content": [{"token": " one", "bytes": [900]}]}),
    }
    with failing_service(lambda call: replies.get(call.turn, replies["known"])) as (address, calls):
        teacher = make(address, tokenizer, k=3)
        one, other, third, fourth = teacher.generate(ask(*replies), SAMPLING)
        assert calls[-1].body["logprobs"] is True and calls[-1].body["top_logprobs"] == 3
    ids = {text: tokenizer(text, add_special_tokens=False)["input_ids"][0] for text in (" one", " two")}
    assert one.tokens.tolist() == [ids[" one"], ids[" two"], tokenizer.eos_token_id]
    # The second token was drawn against the odds: a list of two that begins with it may lack the second likeliest.
    assert one.rows.counts.tolist() == [2, 1, 0]
    assert one.rows.ids.tolist() == [ids[" one"], ids[" two"], ids[" one"]]
    assert np.exp(one.rows.log_tail) == pytest.approx([1 - np.exp(-0.5) - np.exp(-1.5), 1 - np.exp(-0.1), 1])
    assert one.token_logprobs[:2].tolist() == [-0.5, -3.0] and np.isnan(one.token_logprobs[2])
    for text_alone, text in ((other, " one two one"), (third, "one  two")):
        assert not text_alone.refusal and len(text_alone.rows.ids) == 0
        assert decode(text_alone.tokens, tokenizer) == text
    assert "log-probabilities do not have the form" in fourth.refusal


def test_messages_of_anthropic(tokenizer: Tokenizer) -> None:
    replies = {"stop": message("", "refusal"), "cut": message("one", "max_tokens"), "form": Reply(body={"content": 3})}
    warm = replace(SAMPLING, temperature=0.5, top_p=0.9)
    with failing_service(lambda call: replies.get(call.turn, message("one two"))) as (address, calls):
        teacher = make(address, tokenizer, "anthropic")
        roles = ("system", "user", "assistant", "user")
        good: Generated = teacher.generate(ask("good", roles=roles), SAMPLING)[0]
        stop, cut, form = teacher.generate(ask("stop", "cut", "form"), warm)
        late = teacher.generate(ask("late", roles=("user", "system", "user")), SAMPLING)[0]
        tool = teacher.generate(ask("tool", roles=("user", "tool", "user")), SAMPLING)[0]
        first = next(call for call in calls if call.turn == "good")
        other = next(call for call in calls if call.turn == "cut")
    assert first.path == "/v1/messages" and "anthropic-version" in first.headers
    assert KEY in (first.headers.get("x-api-key"), first.headers.get("authorization", "").removeprefix("Bearer "))
    assert first.body == {
        "model": "m",
        "max_tokens": 12,
        "system": "a system's turn",
        "messages": [
            {"role": "user", "content": "a user's turn"},
            {"role": "assistant", "content": "a assistant's turn"},
            {"role": "user", "content": "good"},
        ],
    }
    assert (other.body["temperature"], other.body["top_p"]) == (0.5, 0.9)
    assert decode(good.tokens, tokenizer) == "one two" and good.finished
    assert stop.refusal == "the service did not answer: refusal"
    assert not cut.refusal and not cut.finished
    assert "form" in form.refusal and "system turn" in late.refusal and "'tool'" in tool.refusal


@pytest.mark.parametrize(
    "value, message",
    [(None, f"environment variable {VARIABLE} is not set"), ("a\nb", "characters that an API key cannot have")],
)
def test_a_key_that_cannot_be_one_is_refused(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, value: str | None, message: str
) -> None:
    monkeypatch.delenv(VARIABLE) if value is None else monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(InputError, match=message) as raised:
        make("http://127.0.0.1:9", tokenizer)
    assert value is None or value not in str(raised.value)


@pytest.mark.parametrize("burst, expected", [(1, [0.5, 1.0, 1.5]), (3, [0.5])])
def test_requests_are_begun_as_often_as_the_limit_allows(burst: int, expected: list[float]) -> None:
    now, slept = 100.0, []
    limit = RateLimit(120, burst, clock=lambda: now, sleep=slept.append)
    for _ in range(4):
        limit.wait()
    assert slept == pytest.approx(expected), "each of those that come together waits for its own"
    now += 60
    slept.clear()
    for _ in range(burst):
        limit.wait()
    assert not slept, "what was not used is kept, up to the burst"
    RateLimit(None, clock=lambda: now, sleep=slept.append).wait()
    assert not slept


def test_the_number_of_concurrent_requests_is_limited(tokenizer: Tokenizer) -> None:
    with failing_service(lambda call: completion("yes")) as (address, calls):
        teacher = make(address, tokenizer, requests_per_minute=1200, concurrency=8)
        start = time.monotonic()
        teacher.generate(ask(*map(str, range(10))), SAMPLING)
        assert time.monotonic() - start > 9 * 60 / 1200
        assert len(calls) == 11
