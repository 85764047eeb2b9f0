"""Service: calls one API through its official client, with rate limit, cost and errors. No message contains the key."""

import os
import threading
from types import ModuleType
from typing import Any

from cache.errors import InputError, LogitbankError
from teacher_serving.engines.endpoint.rate_limit import RateLimit
from teacher_serving.engines.endpoint.settings import EndpointSettings
from teacher_serving.teacher import Usage

ADDRESSES = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}
# Status codes of a request that fails however often it is sent: malformed, unknown, too long, filtered.
REFUSED_STATUSES = (400, 404, 413, 422)
# Calls that may return something else than a JSON object before the job ends. A proxy in between can cause it.
MAX_UNREADABLE_ANSWERS = 3
MAX_TEXT_LENGTH = 300
# Exceptions of parsing an answer that does not have the expected form.
PARSE_ERRORS = (KeyError, IndexError, TypeError, ValueError, AttributeError)


class RefusedError(Exception):
    """The service refused this one request. The message gives the reason, without the key."""


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
        """Send one call and return the answer. The client retries failures, after the pause that the service requests
        or one that grows.

        Raises RefusedError if the service refuses this request, and LogitbankError, which ends the job, if the key or
        the service fails.
        """
        for _ in range(MAX_UNREADABLE_ANSWERS):
            self._limit.wait()
            answer = self._call(path, body)
            if isinstance(answer, dict):
                return answer
        raise LogitbankError(f"{self.name}: its answer to {path} is not a JSON object; check engine.endpoint.base_url")

    def add_usage(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Add the tokens of one answer, and their price, to the usage."""
        price = self._settings.price_input * prompt_tokens + self._settings.price_output * completion_tokens
        with self._lock:
            self.usage = Usage(
                self.usage.requests + 1,
                self.usage.prompt_tokens + prompt_tokens,
                self.usage.completion_tokens + completion_tokens,
                self.usage.cost + price / 1e6,
            )

    def clean_text(self, text: object) -> str:
        """Return text of a service as one short line without the key."""
        line = " ".join(str(text).split())
        if self._key:
            line = line.replace(self._key, "[key]")
        return line if len(line) <= MAX_TEXT_LENGTH else line[:MAX_TEXT_LENGTH] + "..."

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
        """Return the error to raise for a failed call: RefusedError for its request, LogitbankError for the job."""
        tries = self._settings.max_retries + 1
        resume = "run the job again to continue"
        if isinstance(error, self._library.APIConnectionError):
            reason = self.clean_text(f"{error} {error.__cause__ or ''}")
            return LogitbankError(f"{self.name}: no answer after {tries} tries ({reason}); {resume}")
        if not isinstance(error, self._library.APIStatusError):
            return LogitbankError(f"{self.name}: {self.clean_text(error)}")
        code, message = error.status_code, self.clean_text(_error_text(error))
        if code in REFUSED_STATUSES:
            return RefusedError(f"the service refused the request ({code}): {message}")
        if code == 401:  # the service's text is not shown: it may repeat part of the key
            variable = self._settings.key_variable
            fix = f"check environment variable {variable}" if variable else "set engine.endpoint.api_key_env"
            return LogitbankError(f"{self.name}: rejected the API key (401); {fix}")
        if code == 429:
            return LogitbankError(f"{self.name}: still limits requests after {tries} tries (429): {message}; {resume}")
        return LogitbankError(f"{self.name}: failed ({code}): {message}; {resume}")


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
    """Open the official client; returns its library too. It reads no address or key from the environment itself."""
    options: dict[str, Any] = {
        "base_url": settings.base_url or ADDRESSES[settings.api],
        "api_key": key or "none",
        "max_retries": settings.max_retries,
        "timeout": settings.timeout_s,
    }
    if settings.api == "anthropic":
        import anthropic

        return anthropic, anthropic.Anthropic(**options)
    import openai

    return openai, openai.OpenAI(**options)


def _error_text(error: Any) -> str:
    """Return the service's own message from an error of the library."""
    body = error.body
    for name in ("error", "message"):
        body = body.get(name, body) if isinstance(body, dict) else body
    return str(body or error)
