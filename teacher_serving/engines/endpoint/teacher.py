"""EndpointTeacher: a teacher behind an API. It sends several requests at a time and counts their cost."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from cache.errors import InputError
from cache.examples.tokenizers import Tokenizer
from cache.rows.spec import SamplingSpec, StoreSpec
from teacher_serving.engines.endpoint.anthropic import AnthropicMessages
from teacher_serving.engines.endpoint.client import Service
from teacher_serving.engines.endpoint.failures import RefusedError, ServiceFailedError
from teacher_serving.engines.endpoint.openai import OpenaiChat
from teacher_serving.engines.endpoint.settings import EndpointSettings
from teacher_serving.engines.endpoint.vllm_server import VllmCompletions
from teacher_serving.engines.settings import TeacherSettings
from teacher_serving.teacher import (
    Generated,
    Request,
    Scored,
    TeacherStoppedError,
    Usage,
    refused_response,
    refused_score,
)

Answer = TypeVar("Answer")

# Doubtful refusals without a good answer in between, after which a trial request is sent at once.
MAX_DOUBTS = 3


class Api(Protocol):
    """One API of a service. Processes one request at a time; called from several threads.

    score and generate raise RefusedError if the service refuses the request, ServiceFailedError if it fails for all.
    """

    def check(self) -> None:
        """Send a trial request. Raises InputError or RefusedError if it cannot provide what the spec describes."""
        ...

    def probe(self) -> None:
        """Send the short trial request again. Raises RefusedError or ServiceFailedError if it has no good answer."""
        ...

    def score(self, request: Request) -> Scored: ...
    def generate(self, request: Request, sampling: SamplingSpec) -> Generated: ...


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Answer]):
    """What became of a request. answer: None without one. refused_at: time of a doubtful refusal, or None."""

    answer: Answer | None
    refused_at: float | None = None


class ServiceHealth:
    """Whether the service still answers. Threads share it.

    A refusal is doubtful if it does not say whether the request or the service is the reason. It concerns the request
    if a request that was sent later has a good answer. Otherwise a trial request, which the service accepted at the
    start, decides.
    failure: why the service answers no more; "" while it does.
    """

    def __init__(self, probe: Callable[[], None], name: str) -> None:
        self._probe, self._name = probe, name
        self._lock = threading.Lock()
        self._last_good_start = 0.0
        self._doubts = 0
        self.failure = ""

    def add_answer(self, started: float) -> None:
        """Note a good answer to a request that was sent at `started`."""
        with self._lock:
            self._last_good_start = max(self._last_good_start, started)
            self._doubts = 0

    def add_doubt(self) -> None:
        """Note a doubtful refusal. After several without a good answer, a trial request is sent."""
        with self._lock:
            self._doubts += 1
            is_due = self._doubts % MAX_DOUBTS == 0 and not self.failure
        if is_due:
            self.check()

    def add_failure(self, reason: str) -> None:
        """Note that the service fails for all requests. The first reason counts."""
        with self._lock:
            self.failure = self.failure or reason

    def is_doubtful(self, refused_at: float) -> bool:
        """Whether no request that was sent after a doubtful refusal has a good answer."""
        with self._lock:
            return refused_at >= self._last_good_start

    def check(self) -> None:
        """Send a trial request, and note a good answer or a failure."""
        started = time.monotonic()
        try:
            self._probe()
        except RefusedError as error:
            self.add_failure(
                f"{self._name}: has no good answer any more, even to the trial request that it answered at the start: "
                f"{error}; run the same command again to continue"
            )
        except ServiceFailedError as error:
            self.add_failure(str(error))
        else:
            self.add_answer(started)


class EndpointTeacher:
    """Sends requests to a service. The constructor sends a trial request and raises InputError if it is refused.

    answered: requests that were answered or refused since the start. score and generate raise TeacherStoppedError, with
    the answers so far, if the key, the address or the service fails. Later calls raise it without sending a request.
    """

    def __init__(
        self, teacher: TeacherSettings, endpoint: EndpointSettings, spec: StoreSpec, tokenizer: Tokenizer
    ) -> None:
        self._service = Service(endpoint)
        self._api = _open_api(self._service, endpoint, teacher.model, spec, tokenizer)
        self._pool = ThreadPoolExecutor(endpoint.concurrency, "endpoint")
        self._lock = threading.Lock()
        self._health = ServiceHealth(self._api.probe, self._service.name)
        self.answered = 0
        _check(self._api, self._service.name)

    @property
    def usage(self) -> Usage:
        """Usage since the start, including trial requests."""
        return self._service.usage

    def score(self, requests: Sequence[Request]) -> list[Scored]:
        """See Teacher.score."""
        return self._run_all(requests, self._api.score, refused_score)

    def generate(self, requests: Sequence[Request], sampling: SamplingSpec) -> list[Generated]:
        """See Teacher.generate."""
        return self._run_all(
            requests,
            lambda request: self._api.generate(request, sampling),
            lambda request, reason: refused_response(reason),
        )

    def _run_all(
        self,
        requests: Sequence[Request],
        send: Callable[[Request], Answer],
        refuse: Callable[[Request, str], Answer],
    ) -> list[Answer]:
        """Send all requests and return their answers in the same order.

        After a failure of the service no further request is sent, and the answers to those under way are awaited.
        """
        health = self._health

        def answer_or_refuse(request: Request) -> Outcome[Answer]:
            if health.failure:
                return Outcome(None)
            started = time.monotonic()
            try:
                answer = send(request)
            except ServiceFailedError as error:
                health.add_failure(str(error))
                return Outcome(None)
            except RefusedError as error:
                outcome = Outcome(refuse(request, str(error)), None if error.is_certain else time.monotonic())
                if not error.is_certain:
                    health.add_doubt()
            else:
                health.add_answer(started)
                outcome = Outcome(answer)
            with self._lock:
                self.answered += 1
            return outcome

        outcomes = list(self._pool.map(answer_or_refuse, requests))
        doubts = [outcome.refused_at for outcome in outcomes if outcome.refused_at is not None]
        if not health.failure and any(map(health.is_doubtful, doubts)):
            health.check()
        if not health.failure:
            return [outcome.answer for outcome in outcomes if outcome.answer is not None]
        answers = [
            None if outcome.refused_at is not None and health.is_doubtful(outcome.refused_at) else outcome.answer
            for outcome in outcomes
        ]
        raise TeacherStoppedError(health.failure, answers)


def _check(api: Api, name: str) -> None:
    """Send the trial requests. Raises InputError if the service refuses one, LogitbankError if it fails."""
    failure: InputError
    try:
        api.check()
        return
    except RefusedError as error:
        failure = InputError(f"{name}: {error}")
    except ServiceFailedError as error:
        if error.status != 404:  # otherwise a mistake in the job
            raise
        failure = InputError(str(error))
    raise failure


def _open_api(service: Service, endpoint: EndpointSettings, model: str, spec: StoreSpec, tokenizer: Tokenizer) -> Api:
    if endpoint.api == "vllm":
        return VllmCompletions(service, model, spec, endpoint.top_logprobs)
    if endpoint.api == "openai":
        return OpenaiChat(service, model, spec, tokenizer, endpoint.top_logprobs, endpoint.schema_form)
    return AnthropicMessages(service, model, spec, tokenizer)
