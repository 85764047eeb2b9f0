"""One service: its official client, its limits, its price, and its errors. The key is never part of a message."""

import os
import threading
from types import ModuleType
from typing import Any

from cache.errors import InputError, LogitbankError
from teacher_serving.engines.endpoint.rate_limit import RateLimit
from teacher_serving.engines.endpoint.settings import EndpointSettings
from teacher_serving.teacher import Usage

ADDRESSES = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}
# The service has understood the request and will never answer it: malformed, unknown, too long, filtered.
REFUSALS = (400, 404, 413, 422)
# Tries of an answer that is no JSON object; only something between here and the service writes such.
READABLE_TRIES = 3
LONGEST_WORDS = 300


# What reading an answer of another form comes to.
MALFORMED = (KeyError, IndexError, TypeError, ValueError, AttributeError)


class RefusedError(Exception):
    """The service has no answer to this one request. Its text says why, and may be kept."""


class Service:
    """Calls of a service as JSON objects. Threads may share it."""

    def __init__(self, settings: EndpointSettings) -> None:
        self._settings = settings
        self._key = read_key(settings)
        self._library, self._client = _open_client(settings, self._key)
        self._limit = RateLimit(settings.requests_per_minute)
        self._lock = threading.Lock()
        self.usage = Usage()

    @property
    def name(self) -> str:
        """The service as messages tell it."""
        return f"service {self._settings.base_url or ADDRESSES[self._settings.api]}"

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to one call. The client tries again, with growing pauses or those that the service asks for.

        Raises RefusedError where the service refuses this request for good, and LogitbankError, which ends the job,
        where the key or the service is at fault.
        """
        for _ in range(READABLE_TRIES):
            self._limit.wait()
            answer = self._call(path, body)
            if isinstance(answer, dict):
                return answer
        raise LogitbankError(
            f"{self.name}: what it answers to {path} is no JSON object; is engine.endpoint.base_url right?"
        )

    def count(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Add an answer to what is spent."""
        price = self._settings.price_input * prompt_tokens + self._settings.price_output * completion_tokens
        with self._lock:
            self.usage = Usage(
                self.usage.requests + 1,
                self.usage.prompt_tokens + prompt_tokens,
                self.usage.completion_tokens + completion_tokens,
                self.usage.cost + price / 1e6,
            )

    def words(self, text: object) -> str:
        """Text of a service in one short line, without the key."""
        line = " ".join(str(text).split())
        if self._key:
            line = line.replace(self._key, "[key]")
        return line if len(line) <= LONGEST_WORDS else line[:LONGEST_WORDS] + "..."

    def _call(self, path: str, body: dict[str, Any]) -> Any:
        failure: Exception
        try:
            return self._client.post(path, body=body, cast_to=object)
        except ValueError:
            return None  # said to be JSON, and is not
        except self._library.APIError as error:
            failure = self._explain(error)
        # Out of the handler, so that what the library raised, which may hold the key, goes with neither.
        raise failure

    def _explain(self, error: Any) -> Exception:
        """What a failed call means for its request or for the job."""
        tries = self._settings.max_retries + 1
        again = "run the job again to continue"
        if isinstance(error, self._library.APIConnectionError):
            reason = self.words(f"{error} {error.__cause__ or ''}")
            return LogitbankError(f"{self.name}: no answer after {tries} tries ({reason}); {again}")
        if not isinstance(error, self._library.APIStatusError):
            return LogitbankError(f"{self.name}: {self.words(error)}")
        code, said = error.status_code, self.words(_message(error))
        if code in REFUSALS:
            return RefusedError(f"the service refuses it ({code}): {said}")
        if code == 401:  # services like to repeat the key, or most of it
            where = self._settings.key_variable
            fix = f"check environment variable {where}" if where else "name its variable as engine.endpoint.api_key_env"
            return LogitbankError(f"{self.name}: refuses the key (401); {fix}")
        if code == 429:
            return LogitbankError(f"{self.name}: limits requests still after {tries} tries (429): {said}; {again}")
        return LogitbankError(f"{self.name}: fails ({code}): {said}; {again}")


def read_key(settings: EndpointSettings) -> str:
    """The key from its environment variable, "" where none is sent. Raises InputError where the variable has none."""
    name = settings.key_variable
    if name is None:
        return ""
    key = os.environ.get(name, "").strip()
    if not key:
        raise InputError(
            f"environment variable {name} is not set; put the service's key into it where the command, or on a cluster "
            "each node's Ray, is started"
        )
    if not (key.isascii() and key.isprintable()):
        raise InputError(f"environment variable {name} holds characters that no key has")
    return key


def _open_client(settings: EndpointSettings, key: str) -> tuple[ModuleType, Any]:
    """The official library and its client. Neither takes an address or a key from the environment by itself."""
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


def _message(error: Any) -> str:
    """What the service wrote, without what the library puts around it."""
    body = error.body
    for name in ("error", "message"):
        body = body.get(name, body) if isinstance(body, dict) else body
    return str(body or error)
