"""vLLM's completions API: token ids in; token ids and their log-probabilities out, also of the prompt."""

from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import InputError
from cache.rows.spec import SamplingSpec, StoreSpec
from teacher_serving.asking.json_schemas import response_format
from teacher_serving.asking.requests import build_scored, continuation_request
from teacher_serving.engines.endpoint.client import Service
from teacher_serving.engines.endpoint.failures import FormError, RefusedError
from teacher_serving.engines.endpoint.rows import PARSE_ERRORS, own_logprobs, require_valid, rows_from_top_logprobs
from teacher_serving.reduction.draws import sampling_seed
from teacher_serving.reduction.row_arrays import take_rows
from teacher_serving.reduction.rows import Rows
from teacher_serving.teacher import Generated, Request, Scored

PATH = "/completions"
# A server may have other defaults for its model. Draws are from the whole distribution, without penalties.
NO_FILTERS = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
TRIAL_REQUEST = Request("0" * 32, np.arange(1, 5, dtype=np.uint32), np.arange(3))
# Greatest accepted difference, in nats, between a token's log-probability when it is sampled and when it is scored. It
# allows for half precision.
MAX_DIFFERENCE = 0.15


class VllmCompletions:
    """vLLM's server. top_logprobs: log-probabilities requested for each token."""

    def __init__(self, service: Service, model: str, spec: StoreSpec, top_logprobs: int) -> None:
        self._service, self._model, self._spec, self._top_logprobs = service, model, spec, top_logprobs

    def check(self) -> None:
        """Send short trial requests. Raises InputError if the server cannot provide what the spec describes."""
        name = self._service.name
        try:
            self.score(TRIAL_REQUEST)
            if (sampling := self._spec.sampling) is not None:
                response = self.generate(TRIAL_REQUEST, sampling, max_tokens=1)
                tokens = np.concatenate([TRIAL_REQUEST.tokens, response.tokens])
                scored = self.score(Request(TRIAL_REQUEST.key, tokens, np.arange(len(tokens) - 1)))
                if not np.abs(scored.token_logprobs[-1] - response.token_logprobs[0]) <= MAX_DIFFERENCE:
                    raise InputError(
                        f"{name}: its log-probabilities change with the temperature; start the server with "
                        "--logprobs-mode raw_logprobs"
                    )
        except RefusedError as error:
            fix = ""
            if "max allowed" in str(error):
                fix = f"; start it with --max-logprobs {self._top_logprobs}, or lower engine.endpoint.top_logprobs"
            raise InputError(f"{name}: {error}{fix}") from None

    def probe(self) -> None:
        """Send the short trial request again. Raises RefusedError or ServiceFailedError if it has no good answer."""
        self.score(TRIAL_REQUEST)

    def score(self, request: Request) -> Scored:
        """Score one request. Raises RefusedError if the server refuses it or is not vLLM's."""
        body = {"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": self._top_logprobs}
        choice = self._complete(request, body)
        try:
            # Position t of the server's list is the distribution of token t, which is row t - 1. Position 0 is empty.
            entries = [choice["prompt_logprobs"][row + 1] for row in request.rows]
            token_entries = [
                entry[str(request.tokens[row + 1])] for row, entry in zip(request.rows, entries, strict=True)
            ]
            positions = [[(int(id_), float(v["logprob"])) for id_, v in entry.items()] for entry in entries]
            return build_scored(request, self._make_rows(positions, [v["logprob"] for v in token_entries]))
        except PARSE_ERRORS:
            raise FormError("the service's answer has no log-probabilities of the prompt; is it vLLM?") from None

    def generate(self, request: Request, sampling: SamplingSpec, max_tokens: int | None = None) -> Generated:
        """Generate one response. max_tokens: replaces the limit in `sampling`.

        Raises RefusedError if the server refuses the request or is not vLLM's.
        """
        body: dict[str, Any] = {
            "max_tokens": sampling.max_tokens if max_tokens is None else max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling_seed(request.key, sampling.seed),
            "logprobs": self._top_logprobs,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            **NO_FILTERS,
            **response_format(sampling),
        }
        if request.stop:
            body["stop"] = request.stop_texts
        choice = self._complete(request, body)
        try:
            tokens = np.asarray(choice["token_ids"], np.int64)
            entries = choice["logprobs"]["top_logprobs"]
            # Names of tokens have the form "token_id:123".
            positions = [
                [(int(name.split(":")[1]), float(v)) for name, v in (entry or {}).items()] for entry in entries
            ]
            rows = self._make_rows(positions, choice["logprobs"]["token_logprobs"])
            if not len(tokens) == len(rows.token_logprobs) == len(rows.targets):
                raise ValueError
        except PARSE_ERRORS:
            raise FormError("the service's answer has no token ids with log-probabilities; is it vLLM?") from None
        if len(tokens) and (int(tokens.max()) >= self._spec.vocab_size or int(tokens.min()) < 0):
            wrong = tokens.min() if tokens.min() < 0 else tokens.max()
            raise FormError(f"the service returned token {wrong}, which the tokenizer does not have")
        if sampling.json_schema:
            rows = self._rows_without_schema(request, tokens)
        finished = choice.get("finish_reason") == "stop"
        return Generated(tokens.astype(np.uint32), rows.targets, rows.token_logprobs, finished)

    def _rows_without_schema(self, request: Request, tokens: npt.NDArray[np.int64]) -> Rows:
        """Score a response: where a schema guides the decoding, the server's log-probabilities are those it leaves."""
        continuation = continuation_request(request, tokens.astype(np.uint32))
        scored = self.score(continuation)
        return Rows(take_rows(scored.targets, continuation.rows), scored.token_logprobs[continuation.rows + 1])

    def _complete(self, request: Request, body: dict[str, Any]) -> dict[str, Any]:
        """Send one request and return its only choice."""
        prompt: npt.NDArray[np.uint32] = request.tokens
        answer = self._service.post(PATH, {"model": self._model, "prompt": prompt.tolist(), **body})
        try:
            return dict(answer["choices"][0])
        except PARSE_ERRORS:
            raise FormError("the service's answer has no choice") from None

    def _make_rows(self, positions: list[list[tuple[int, float]]], token_logprobs: list[float]) -> Rows:
        targets = rows_from_top_logprobs(positions, self._top_logprobs, self._spec.targets, self._spec.vocab_size)
        rows = Rows(targets, own_logprobs(token_logprobs))
        require_valid(rows, self._spec.vocab_size)
        return rows
