"""vLLM's completions: token ids in, token ids and their log-probabilities out, of given tokens too."""

from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import InputError
from cache.rows.spec import SamplingSpec, StoreSpec
from teacher_serving.asking.requests import build_scored
from teacher_serving.engines.endpoint.client import MALFORMED, RefusedError, Service
from teacher_serving.engines.endpoint.rows import rows_from_told
from teacher_serving.reduction.draws import sampling_seed
from teacher_serving.reduction.reducer import Rows
from teacher_serving.teacher import Generated, Request, Scored

PATH = "/completions"
# A server may have other defaults for its model: draws are from the whole distribution, and nothing is penalised.
PLAIN = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
PROBE = Request("0" * 32, np.arange(1, 5, dtype=np.uint32), np.arange(3))
# Greatest difference, in nats, between a token's log-probability as it is drawn and as it is scored: half precision.
SAME = 0.15


class VllmCompletions:
    """Asks for `asked` log-probabilities a token, and keeps those that the targets of the spec want."""

    def __init__(self, service: Service, model: str, spec: StoreSpec, asked: int) -> None:
        self._service, self._model, self._spec, self._asked = service, model, spec, asked

    def check(self) -> None:
        """Ask about a few tokens. Raises InputError where the server gives less than the spec says."""
        name = self._service.name
        try:
            self.score(PROBE)
            if (sampling := self._spec.sampling) is not None:
                written = self.generate(PROBE, sampling, most=1)
                whole = np.concatenate([PROBE.tokens, written.tokens])
                again = self.score(Request(PROBE.key, whole, np.arange(len(whole) - 1)))
                if not np.abs(again.token_logprobs[-1] - written.token_logprobs[0]) <= SAME:
                    raise InputError(
                        f"{name}: its log-probabilities change with the temperature; start the server with "
                        "--logprobs-mode raw_logprobs"
                    )
        except RefusedError as error:
            fix = ""
            if "max allowed" in str(error):
                fix = f"; start it with --max-logprobs {self._asked}, or lower engine.endpoint.top_logprobs"
            raise InputError(f"{name}: {error}{fix}") from None

    def score(self, request: Request) -> Scored:
        body = {"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": self._asked}
        choice = self._complete(request, body)
        try:
            # The server's position t is the law of token t, so it belongs to row t - 1; position 0 is empty.
            told = [choice["prompt_logprobs"][row + 1] for row in request.rows]
            own = [entry[str(request.tokens[row + 1])] for row, entry in zip(request.rows, told, strict=True)]
            positions = [[(int(id_), float(v["logprob"])) for id_, v in entry.items()] for entry in told]
            return build_scored(request, self._rows(positions, [v["logprob"] for v in own]))
        except MALFORMED:
            raise RefusedError("the service's answer has no log-probabilities of the prompt; is it vLLM?") from None

    def generate(self, request: Request, sampling: SamplingSpec, most: int | None = None) -> Generated:
        """most: tokens to write, if not those of `sampling`."""
        body = {
            "max_tokens": sampling.max_tokens if most is None else most,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling_seed(request.key, sampling.seed),
            "logprobs": self._asked,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            **PLAIN,
        }
        choice = self._complete(request, body)
        try:
            tokens = np.asarray(choice["token_ids"], np.int64)
            told = choice["logprobs"]["top_logprobs"]
            positions = [[(int(name.split(":")[1]), float(v)) for name, v in entry.items()] for entry in told]
            rows = self._rows(positions, choice["logprobs"]["token_logprobs"])
            if not len(tokens) == len(rows.token_logprobs) == len(rows.targets):
                raise ValueError
        except MALFORMED:
            raise RefusedError("the service's answer has no token ids with log-probabilities; is it vLLM?") from None
        if len(tokens) and int(tokens.max()) >= self._spec.vocab_size:
            raise RefusedError(f"the service wrote token {tokens.max()}, which the tokenizer does not have")
        finished = choice.get("finish_reason") == "stop"
        return Generated(tokens.astype(np.uint32), rows.targets, rows.token_logprobs, finished)

    def _complete(self, request: Request, body: dict[str, Any]) -> dict[str, Any]:
        """The one choice of a completion."""
        prompt: npt.NDArray[np.uint32] = request.tokens
        answer = self._service.post(PATH, {"model": self._model, "prompt": prompt.tolist(), **body})
        try:
            usage = answer["usage"]
            self._service.count(int(usage["prompt_tokens"]), int(usage["completion_tokens"]))
            return dict(answer["choices"][0])
        except MALFORMED:
            raise RefusedError("the service's answer has no choice or no usage") from None

    def _rows(self, positions: list[list[tuple[int, float]]], own: list[float]) -> Rows:
        targets = rows_from_told(positions, self._asked, self._spec.targets, self._spec.vocab_size)
        # Rounding may leave a log-probability a hair above 0.
        return Rows(targets, np.minimum(np.asarray(own, np.float32), 0.0))
