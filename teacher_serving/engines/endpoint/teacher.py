"""A teacher behind an API: many requests at a time, the price of each counted, and one refused without the others."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Any, Protocol, TypeVar

from cache.examples.tokenizers import Tokenizer
from cache.rows.spec import SamplingSpec, StoreSpec
from teacher_serving.engines.endpoint.anthropic import AnthropicMessages
from teacher_serving.engines.endpoint.chat import OpenaiChat
from teacher_serving.engines.endpoint.client import RefusedError, Service
from teacher_serving.engines.endpoint.rows import refused_response, refused_score
from teacher_serving.engines.endpoint.settings import EndpointSettings
from teacher_serving.engines.endpoint.vllm_server import VllmCompletions
from teacher_serving.engines.settings import TeacherSettings
from teacher_serving.teacher import Generated, Request, Scored, Usage

Answer = TypeVar("Answer")


class Api(Protocol):
    """One request at a time, from many threads. Raises RefusedError for one that has no answer."""

    def check(self) -> None:
        """Raise InputError where the service does not give what the spec says."""
        ...

    def score(self, request: Request) -> Scored: ...
    def generate(self, request: Request, sampling: SamplingSpec) -> Generated: ...


class EndpointTeacher:
    """Asks a service, which is tried before the first request.

    LogitbankError ends a call where the key, the address or the service is at fault; what was answered is lost then, so
    that small units lose less.
    """

    def __init__(
        self, teacher: TeacherSettings, endpoint: EndpointSettings, spec: StoreSpec, tokenizer: Tokenizer
    ) -> None:
        self._service = Service(endpoint)
        self._api = _open_api(self._service, endpoint, teacher.model, spec, tokenizer)
        self._pool = ThreadPoolExecutor(endpoint.concurrency, "endpoint")
        self._lock = threading.Lock()
        self.answered = 0
        self._api.check()

    @property
    def usage(self) -> Usage:
        """Since the start, the first trial included."""
        return self._service.usage

    def score(self, requests: Sequence[Request]) -> list[Scored]:
        return self._each(requests, self._api.score, refused_score)

    def generate(self, requests: Sequence[Request], sampling: SamplingSpec) -> list[Generated]:
        return self._each(
            requests,
            lambda request: self._api.generate(request, sampling),
            lambda request, reason: refused_response(reason),
        )

    def _each(
        self,
        requests: Sequence[Request],
        ask: Callable[[Request], Answer],
        refuse: Callable[[Request, str], Answer],
    ) -> list[Answer]:
        """Answers in the order of the requests. The first error ends all of them."""

        def one(request: Request) -> Answer:
            try:
                return ask(request)
            except RefusedError as error:
                return refuse(request, str(error))

        futures = [self._pool.submit(one, request) for request in requests]
        for future in futures:
            future.add_done_callback(self._count)
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
            for future in futures:
                if future.done():
                    future.result()  # raises what went wrong, before those that wait for it to end
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()

    def _count(self, future: Future[Any]) -> None:
        with self._lock:
            self.answered += 1


def _open_api(service: Service, endpoint: EndpointSettings, model: str, spec: StoreSpec, tokenizer: Tokenizer) -> Api:
    if endpoint.api == "vllm":
        return VllmCompletions(service, model, spec, endpoint.top_logprobs)
    if endpoint.api == "openai":
        return OpenaiChat(service, model, spec, tokenizer, endpoint.top_logprobs)
    return AnthropicMessages(service, model, spec, tokenizer)
