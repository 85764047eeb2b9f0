"""Service: calls one API through its official client, with rate limit, cost and errors. No message contains the key."""

import math
import os
import threading
import time
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from cache.errors import InputError
from teacher_serving.engines.endpoint.failures import (
    CONTINUE,
    PASSING_STATUSES,
    FormError,
    RefusedError,
    ServiceFailedError,
    embedded_error,
    error_details,
    error_text,
    find_cause,
)
from teacher_serving.engines.endpoint.rate_limit import RateLimit
from teacher_serving.engines.endpoint.settings import EndpointSettings
from teacher_serving.teacher import Usage

ADDRESSES = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}
# Calls that may return something else than a JSON object before the job ends. A proxy in between can cause it.
MAX_UNREADABLE_ANSWERS = 3
MAX_TEXT_LENGTH = 300
# Pause before the first repetition of a call, and the longest one, in seconds. Each pause is twice the one before.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0
ANTHROPIC_VERSION = "2023-06-01"
# The names that services use for the tokens of a prompt and of a response.
PROMPT_TOKENS, RESPONSE_TOKENS = ("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens")


class Service:
    """Sends JSON objects to a service and returns its JSON objects. Threads may share it.

    usage: requests, tokens and cost so far.
    """

    def __init__(self, settings: EndpointSettings) -> None:
        self._settings = settings
        self._key = read_key(settings)
        self._library, self._client = _open_client(settings, self._key)
        self._limit = RateLimit(settings.requests_per_minute)
        self._lock = threading.Lock()
        self.usage = Usage()

    @property
    def name(self) -> str:
        """The service in error messages."""
        return f"service {self._settings.base_url or ADDRESSES[self._settings.api]}"

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send one call, add its usage, and return the answer. Failures that may pass are tried again, after the pause
        that the service requests or one that grows.

        Raises RefusedError if the service refuses this request or may refuse all, and LogitbankError, which ends the
        job, if the key or the service fails.
        """
        unreadable = 0
        for retry in range(self._settings.max_retries + MAX_UNREADABLE_ANSWERS):
            self._limit.wait()
            answer = self._call(path, body)
            if not isinstance(answer, dict):
                unreadable += 1
                if unreadable == MAX_UNREADABLE_ANSWERS:
                    break
                continue
            failed = embedded_error(answer)
            if failed is None:
                self._add_usage(answer.get("usage"))
                return answer
            status, reply = failed
            may_pass = status in PASSING_STATUSES or status >= 500
            if not may_pass or retry >= self._settings.max_retries:
                raise self._explain_status(status, reply)
            time.sleep(min(LONGEST_PAUSE, FIRST_PAUSE * 2**retry))
        raise FormError(f"its answer to {path} is not a JSON object; check engine.endpoint.base_url")

    def clean_text(self, text: object) -> str:
        """Return text of a service as one short line without the key."""
        line = " ".join(str(text).split())
        if self._key:
            line = line.replace(self._key, "[key]")
        return line if len(line) <= MAX_TEXT_LENGTH else line[:MAX_TEXT_LENGTH] + "..."

    def _add_usage(self, usage: Any) -> None:
        """Add the tokens of one answer, and their price, to the usage. Some services report none."""
        prompt, response = _count_tokens(usage, PROMPT_TOKENS), _count_tokens(usage, RESPONSE_TOKENS)
        price = self._settings.price_input * prompt + self._settings.price_output * response
        with self._lock:
            self.usage = Usage(
                self.usage.requests + 1,
                self.usage.prompt_tokens + prompt,
                self.usage.completion_tokens + response,
                self.usage.cost + price / 1e6,
            )

    def _call(self, path: str, body: dict[str, Any]) -> Any:
        failure: Exception
        try:
            return self._client.post(path, body=body, cast_to=object)
        except ValueError:
            return None  # not JSON, although the header says so
        except self._library.APIError as error:
            failure = self._explain(error)
        # Outside the handler, so that the library's error is not attached as context: it may contain the key.
        raise failure

    def _explain(self, error: Any) -> Exception:
        """Return the error to raise for a failed call: RefusedError for its request, ServiceFailedError for the job."""
        if isinstance(error, self._library.APIConnectionError):
            tries = self._settings.max_retries + 1
            reason = self.clean_text(f"{error} {error.__cause__ or ''}")
            return ServiceFailedError(f"{self.name}: no answer after {tries} tries ({reason}); run the job again")
        if not isinstance(error, self._library.APIStatusError):
            return ServiceFailedError(f"{self.name}: {self.clean_text(error)}; run the job again to continue")
        if 300 <= error.status_code < 400:
            # Redirects are not followed: prompts and key are for this address alone.
            target = self.clean_text(error.response.headers.get("location", "another address"))
            return ServiceFailedError(
                f"{self.name}: redirects to {target} ({error.status_code}), which is not followed; set "
                "engine.endpoint.base_url to the address that answers",
                error.status_code,
            )
        return self._explain_status(error.status_code, error.body or str(error))

    def _explain_status(self, code: int, body: Any) -> Exception:
        """Return the error to raise for a reply with the status of a failure."""
        tries, message = self._settings.max_retries + 1, self.clean_text(error_text(body))
        cause = find_cause(code, error_details(body))
        if cause != "service":
            return RefusedError(f"the service refused the request ({code}): {message}", cause == "request")
        if code == 401:  # the service's text is not shown: it may repeat part of the key
            variable = self._settings.key_variable
            fix = f"check environment variable {variable}" if variable else "set engine.endpoint.api_key_env"
            text = f"rejected the API key (401); {fix}, {CONTINUE}"
        elif code == 402:
            text = f"the account has no credit left (402): {message}; add credit, {CONTINUE}"
        elif code == 404:
            fix = "check teacher.model and engine.endpoint.base_url"
            text = f"the service refused the request (404): {message}; {fix}, {CONTINUE}"
        elif code == 429:
            text = f"still limits requests after {tries} tries (429): {message}; run the job again to continue"
        else:
            text = f"failed ({code}): {message}; run the job again to continue"
        return ServiceFailedError(f"{self.name}: {text}", code)


def read_key(settings: EndpointSettings) -> str:
    """Read the key from its environment variable. Returns "" if none is to be sent.

    Raises InputError if the variable is not set or contains characters that cannot be sent.
    """
    name = settings.key_variable
    if name is None:
        return ""
    key = os.environ.get(name, "").strip()
    if not key:
        raise InputError(
            f"environment variable {name} is not set; set it to the service's key for the command, or on a cluster for "
            "Ray on each node"
        )
    if not (key.isascii() and key.isprintable()):
        raise InputError(
            f"environment variable {name} contains characters that an API key cannot have; set it to the key alone"
        )
    return key


def _open_client(settings: EndpointSettings, key: str) -> tuple[ModuleType, Any]:
    """Open the official client; returns its library too.

    It reads no address or key from the environment. A proxy of the environment is used.
    """
    library: ModuleType
    if settings.api == "anthropic":
        import anthropic as library

        own = {"anthropic-version": ANTHROPIC_VERSION, **({"x-api-key": key} if key else {})}
    else:
        import openai as library

        own = {"authorization": f"Bearer {key}"} if key else {}
    agent = f"logitbank ({library.__name__} {library.__version__})"

    def replace_headers(request: Any) -> None:
        # The clients take headers from environment variables, which are meant for one service, and may replace any.
        sent = {
            "host": request.url.netloc.decode("ascii"),
            "connection": "keep-alive",
            "accept": "application/json",
            "accept-encoding": "gzip, deflate",
            "user-agent": agent,
            "content-type": "application/json",
            "content-length": str(len(request.content)),
        }
        for name in list(request.headers):
            del request.headers[name]
        request.headers.update({**sent, **own})

    http_client = library.DefaultHttpxClient(
        follow_redirects=False, timeout=settings.timeout_s, event_hooks={"request": [replace_headers]}
    )
    make = library.Anthropic if settings.api == "anthropic" else library.OpenAI
    client = make(
        base_url=settings.base_url or ADDRESSES[settings.api],
        api_key=key or "none",
        max_retries=settings.max_retries,
        timeout=settings.timeout_s,
        http_client=http_client,
    )
    return library, client


def _count_tokens(usage: Any, names: tuple[str, ...]) -> int:
    """The number of tokens that a usage names; 0 if it names none."""
    for name in names:
        value = usage.get(name) if isinstance(usage, Mapping) else None
        if isinstance(value, int | float) and math.isfinite(value) and value > 0:
            return int(value)
    return 0
