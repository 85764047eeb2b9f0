"""EndpointTeacher: a teacher behind an API. It sends several requests at a time and counts their cost."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Any, Protocol, TypeVar

from cache.examples.tokenizers import Tokenizer
from cache.rows.spec import SamplingSpec, StoreSpec
from teacher_serving.engines.endpoint.anthropic import AnthropicMessages
from teacher_serving.engines.endpoint.client import RefusedError, Service
from teacher_serving.engines.endpoint.openai import OpenaiChat
from teacher_serving.engines.endpoint.rows import refused_response, refused_score
from teacher_serving.engines.endpoint.settings import EndpointSettings
from teacher_serving.engines.endpoint.vllm_server import VllmCompletions
from teacher_serving.engines.settings import TeacherSettings
from teacher_serving.teacher import Generated, Request, Scored, Usage

Answer = TypeVar("Answer")


class Api(Protocol):
    """One API of a service. Processes one request at a time; called from several threads.

    score and generate raise RefusedError if the service refuses the request.
    """

    def check(self) -> None:
        """Send a trial request. Raises InputError if the service cannot provide what the spec describes."""
        ...

    def score(self, request: Request) -> Scored: ...
    def generate(self, request: Request, sampling: SamplingSpec) -> Generated: ...


class EndpointTeacher:
    """Sends requests to a service. The constructor sends a trial request and raises InputError if it is refused.

    answered: requests that were answered or refused since the start. score and generate raise LogitbankError if the
    key, the address or the service fails. The answers of that call are lost, so small units lose less.
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
        """Usage since the start, including the trial request."""
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
        """Send all requests and return their answers in the same order. The first error cancels the others."""

        def answer_or_refuse(request: Request) -> Answer:
            try:
                return send(request)
            except RefusedError as error:
                return refuse(request, str(error))

        futures = [self._pool.submit(answer_or_refuse, request) for request in requests]
        for future in futures:
            future.add_done_callback(self._count_answer)
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
            for future in futures:
                if future.done():
                    future.result()  # raises an error at once, before the unfinished requests end
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()

    def _count_answer(self, future: Future[Any]) -> None:
        with self._lock:
            self.answered += 1


def _open_api(service: Service, endpoint: EndpointSettings, model: str, spec: StoreSpec, tokenizer: Tokenizer) -> Api:
    if endpoint.api == "vllm":
        return VllmCompletions(service, model, spec, endpoint.top_logprobs)
    if endpoint.api == "openai":
        return OpenaiChat(service, model, spec, tokenizer, endpoint.top_logprobs)
    return AnthropicMessages(service, model, spec, tokenizer)
