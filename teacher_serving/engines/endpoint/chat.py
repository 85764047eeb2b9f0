"""ChatService: what all chat APIs have in common. They take chat turns and return text; none can score."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import InputError, LogitbankError
from cache.examples.tokenizers import Tokenizer, decode
from cache.rows.sparse_targets import concatenate, empty_targets
from cache.rows.spec import SamplingSpec, StoreSpec
from teacher_serving.engines.endpoint.client import PARSE_ERRORS, RefusedError, Service
from teacher_serving.reduction.reducer import Rows
from teacher_serving.teacher import Generated, Request, Scored

TRIAL_REQUEST = Request("0" * 32, np.zeros(0, np.uint32), messages=({"role": "user", "content": "Say yes."},))
TRIAL_TOKENS = 16


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """A parsed answer. finished: the model ended the text itself, rather than at the limit of tokens.

    logprobs: the log-probabilities of its tokens in the form of the API; None if the service returned none.
    """

    text: str
    finished: bool
    logprobs: Any


class ChatService:
    """A chat API. Subclasses define `path`, `_build_body`, `_parse_usage` and `_parse`, and may define `_make_rows`."""

    path: str

    def __init__(self, service: Service, model: str, spec: StoreSpec, tokenizer: Tokenizer) -> None:
        self._service, self._model, self._spec, self._tokenizer = service, model, spec, tokenizer

    def check(self) -> None:
        """Send a short trial request with the settings of the job. Raises InputError if the service refuses it."""
        sampling = self._spec.sampling
        if sampling is None:
            return
        try:
            answer = self._complete(TRIAL_REQUEST, sampling, min(TRIAL_TOKENS, sampling.max_tokens))
        except RefusedError as error:
            raise InputError(f"{self._service.name}: {error}") from None
        if answer.logprobs is None and self._spec.targets.k:
            raise InputError(
                f"{self._service.name}: returns no log-probabilities; set engine.endpoint.top_logprobs = 0"
            )

    def score(self, request: Request) -> Scored:
        """Raise LogitbankError: no chat API can score."""
        raise LogitbankError("this service cannot score given responses; set score = false")

    def generate(self, request: Request, sampling: SamplingSpec) -> Generated:
        """Generate one response. Raises RefusedError if the service returns none."""
        answer = self._complete(request, sampling, sampling.max_tokens)
        if not answer.text.strip():
            raise RefusedError("the service returned no text")
        try:
            tokens_and_rows = None if answer.logprobs is None else self._make_rows(answer.text, answer.logprobs)
        except PARSE_ERRORS:
            raise RefusedError("the service's log-probabilities do not have the form of its API") from None
        tokens, rows = tokens_and_rows or self._tokenize_without_rows(answer.text)
        end = self._tokenizer.eos_token_id
        # Few services return the token that ended a response. It is assumed to be the tokenizer's.
        if answer.finished and end is not None and decode(tokens[-1:], self._tokenizer):
            tokens = np.append(tokens, np.uint32(end))
            logprobs = np.append(rows.token_logprobs, np.float32(np.nan))
            rows = Rows(concatenate([rows.targets, empty_targets(1)]), logprobs)
        return Generated(tokens, rows.targets, rows.token_logprobs, answer.finished)

    def _build_body(self, request: Request, sampling: SamplingSpec, max_tokens: int) -> dict[str, Any]:
        """Build the JSON body of a call, without the model's name."""
        raise NotImplementedError

    def _parse_usage(self, usage: Mapping[str, Any]) -> tuple[int, int]:
        """Return the tokens of the prompt and of the response."""
        raise NotImplementedError

    def _parse(self, answer: Mapping[str, Any]) -> ChatAnswer:
        """Parse an answer. Raises one of PARSE_ERRORS if it has another form, RefusedError if it is a refusal."""
        raise NotImplementedError

    def _make_rows(self, text: str, logprobs: Any) -> tuple[npt.NDArray[np.uint32], Rows] | None:
        """Return token ids and their rows; None if the service's tokens are not the tokenizer's."""
        return None

    def _complete(self, request: Request, sampling: SamplingSpec, max_tokens: int) -> ChatAnswer:
        """Send one request and parse the answer. Raises RefusedError if it is a refusal or has another form."""
        body = {"model": self._model, **self._build_body(request, sampling, max_tokens)}
        answer = self._service.post(self.path, body)
        try:
            self._service.add_usage(*self._parse_usage(answer["usage"]))
        except PARSE_ERRORS:
            self._service.add_usage(0, 0)  # some services report no usage
        try:
            return self._parse(answer)
        except PARSE_ERRORS:
            raise RefusedError("the service's answer does not have the form of its API") from None

    def _tokenize_without_rows(self, text: str) -> tuple[npt.NDArray[np.uint32], Rows]:
        tokens = np.asarray(self._tokenizer(text, add_special_tokens=False)["input_ids"], np.uint32)
        return tokens, Rows(empty_targets(len(tokens)), np.full(len(tokens), np.nan, np.float32))
