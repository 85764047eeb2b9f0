"""No header, key or prompt that is meant for one service reaches another one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from cache.errors import LogitbankError
from cache.examples.tokenizers import Tokenizer
from cache.rows.spec import SamplingSpec, StoreSpec, TargetSpec
from teacher_serving.engines.endpoint.settings import EndpointSettings
from teacher_serving.engines.endpoint.teacher import EndpointTeacher
from teacher_serving.engines.settings import TeacherSettings
from teacher_serving.teacher import Request
from tests.teacher_serving.engines.endpoint.endpoint_server import (
    Call,
    Reply,
    completion,
    failing_service,
    message,
)

KEY, VARIABLE = "sk-of-this-service", "LOGITBANK_TEST_KEY"
SAMPLING = SamplingSpec(1, 1.0, 1.0, 12, 0, "")
# What the environment may hold for other services. Every value has the mark.
MARK = "MEANT-FOR-ANOTHER"
FOREIGN = {
    "OPENAI_API_KEY": f"sk-{MARK}",
    "OPENAI_ADMIN_KEY": f"sk-{MARK}",
    "OPENAI_ORG_ID": f"org-{MARK}",
    "OPENAI_PROJECT_ID": f"proj-{MARK}",
    "OPENAI_WEBHOOK_SECRET": MARK,
    "OPENAI_CUSTOM_HEADERS": f"x-extra: {MARK}\nAuthorization: Bearer {MARK}\nUser-Agent: {MARK}\nCookie: {MARK}",
    "OPENAI_BASE_URL": f"http://127.0.0.1:9/{MARK}",
    "ANTHROPIC_API_KEY": f"sk-ant-{MARK}",
    "ANTHROPIC_AUTH_TOKEN": MARK,
    "ANTHROPIC_CUSTOM_HEADERS": f"x-api-key: {MARK}\nanthropic-beta: {MARK}\nanthropic-version: {MARK}\nHost: {MARK}",
    "ANTHROPIC_BASE_URL": f"http://127.0.0.1:9/{MARK}",
    "ANTHROPIC_WEBHOOK_SIGNING_KEY": MARK,
    "AZURE_OPENAI_API_KEY": MARK,
    "HF_TOKEN": MARK,
}


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Tokenizer:
    loaded: Tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    return loaded


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Everything that a client could take from the environment and the home folder, and this service's own key."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in FOREIGN.items():
        monkeypatch.setenv(name, value)
    netrc = tmp_path / ".netrc"
    netrc.write_text(f"machine 127.0.0.1 login {MARK} password {MARK}\ndefault login {MARK} password {MARK}\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv(VARIABLE, KEY)
    yield


def ask(address: str, tokenizer: Tokenizer, api: str, has_key: bool = True) -> None:
    """Let a teacher send its trial request and one more."""
    given = {"api": api, "base_url": address, "top_logprobs": 0, "max_retries": 0}
    endpoint = EndpointSettings.model_validate({**given, "api_key_env": VARIABLE if has_key else None})
    width = len(tokenizer)  # type: ignore[arg-type]
    spec = StoreSpec("m", "w", "t", "c", width, width, "unknown", TargetSpec("topk", 0), SAMPLING, service="a service")
    teacher = EndpointTeacher(TeacherSettings(model="m"), endpoint, spec, tokenizer)
    request = Request("0" * 32, tokenizer("one")["input_ids"], messages=({"role": "user", "content": "say"},))
    assert not teacher.generate([request], SAMPLING)[0].refusal


def reply(call: Call) -> Reply:
    return message("one") if call.path.endswith("/messages") else completion("one")


@pytest.mark.parametrize("has_key", [True, False])
@pytest.mark.parametrize("api", ["openai", "anthropic"])
def test_a_service_gets_its_own_key_and_no_other_header(tokenizer: Tokenizer, api: str, has_key: bool) -> None:
    with failing_service(reply) as (address, calls):
        ask(address, tokenizer, api, has_key)
    assert len(calls) == 2
    key = {"openai": {"authorization": f"Bearer {KEY}"}, "anthropic": {"x-api-key": KEY}}[api] if has_key else {}
    for call in calls:
        assert MARK not in str(call.headers) + str(call.body)
        assert {name: value for name, value in call.headers.items() if KEY in value} == key
        usual = {"host", "connection", "accept", "accept-encoding", "user-agent", "content-type", "content-length"}
        assert set(call.headers) <= usual | set(key) | {"anthropic-version"}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("api", ["openai", "anthropic"])
def test_neither_key_nor_prompt_follows_a_redirect_to_another_host(tokenizer: Tokenizer, api: str, status: int) -> None:
    with failing_service(reply) as (elsewhere, stolen):
        answers = lambda call: Reply(status, {}, {"location": elsewhere + call.path})  # noqa: E731
        with (
            failing_service(answers) as (address, calls),
            pytest.raises(LogitbankError, match=rf"redirects to {elsewhere}.* \({status}\), .* set engine\.endpoint"),
        ):
            ask(address, tokenizer, api)
    assert len(calls) == 1 and not stolen


def test_the_password_of_a_proxy_goes_to_the_proxy_alone(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment is used. The service behind it sees nothing of its password."""
    with failing_service(reply) as (proxy, calls):
        monkeypatch.setenv("HTTP_PROXY", proxy.replace("http://", f"http://user:{MARK}@"))
        monkeypatch.setenv("http_proxy", proxy.replace("http://", f"http://user:{MARK}@"))
        ask("http://service.invalid", tokenizer, "openai")
        assert calls and all("proxy-authorization" in call.headers for call in calls)
        assert all(call.headers["authorization"] == f"Bearer {KEY}" for call in calls)
    with failing_service(reply) as (address, calls):
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        ask(address, tokenizer, "openai")
        assert calls and all("proxy-authorization" not in call.headers for call in calls)
        assert MARK not in str([call.headers for call in calls])
