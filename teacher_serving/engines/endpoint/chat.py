"""Chat services: turns in, text out, and with chat completions the likeliest tokens by their bytes. None can score."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import InputError, LogitbankError
from cache.examples.token_bytes import ids_by_bytes
from cache.examples.tokenizers import Tokenizer, decode
from cache.rows.sparse_targets import concatenate, empty_targets
from cache.rows.spec import SamplingSpec, StoreSpec
from teacher_serving.engines.endpoint.client import MALFORMED, RefusedError, Service
from teacher_serving.engines.endpoint.rows import rows_from_told
from teacher_serving.reduction.reducer import Rows
from teacher_serving.teacher import Generated, Request, Scored

PROBE = Request("0" * 32, np.zeros(0, np.uint32), messages=({"role": "user", "content": "Say yes."},))
PROBE_TOKENS = 16
NEWER_NAME = "max_completion_tokens"


class ChatService:
    """What the two forms of chat share. `path` and the methods with underscores are each form's own."""

    path: str

    def __init__(self, service: Service, model: str, spec: StoreSpec, tokenizer: Tokenizer) -> None:
        self._service, self._model, self._spec, self._tokenizer = service, model, spec, tokenizer

    def check(self) -> None:
        """Ask for a few words as examples will be asked for. Raises InputError where the service refuses even those."""
        sampling = self._spec.sampling
        if sampling is None:
            return
        try:
            told = self._read(self._ask(PROBE, sampling, min(PROBE_TOKENS, sampling.max_tokens)))[2]
        except RefusedError as error:
            raise InputError(f"{self._service.name}: {error}") from None
        if told is None and self._spec.targets.k:
            raise InputError(f"{self._service.name}: gives no log-probabilities; set engine.endpoint.top_logprobs = 0")

    def score(self, request: Request) -> Scored:
        raise LogitbankError("this service cannot score given responses; set score = false")

    def generate(self, request: Request, sampling: SamplingSpec) -> Generated:
        answer = self._ask(request, sampling, sampling.max_tokens)
        text, finished, told = self._read(answer)
        if not text.strip():
            raise RefusedError("the service wrote no text")
        try:
            found = None if told is None else self._rows(text, told)
        except MALFORMED:
            raise RefusedError("the service's log-probabilities are not in the form of its API") from None
        tokens, rows = found or self._without_rows(text)
        end = self._tokenizer.eos_token_id
        # Few services tell the token that ended a response: it is taken to be the tokenizer's.
        if finished and end is not None and decode(tokens[-1:], self._tokenizer):
            tokens = np.append(tokens, np.uint32(end))
            logprobs = np.append(rows.token_logprobs, np.float32(np.nan))
            rows = Rows(concatenate([rows.targets, empty_targets(1)]), logprobs)
        return Generated(tokens, rows.targets, rows.token_logprobs, finished)

    def _body(self, request: Request, sampling: SamplingSpec, most: int) -> dict[str, Any]:
        raise NotImplementedError

    def _usage(self, usage: Mapping[str, Any]) -> tuple[int, int]:
        raise NotImplementedError

    def _parse(self, answer: Mapping[str, Any]) -> tuple[str, bool, Any]:
        """Text, whether it ended by itself, and what was told of its tokens, None where nothing was."""
        raise NotImplementedError

    def _read(self, answer: Mapping[str, Any]) -> tuple[str, bool, Any]:
        """What _parse gives. Raises RefusedError where it cannot."""
        try:
            return self._parse(answer)
        except MALFORMED:
            raise RefusedError("the service's answer is not in the form of its API") from None

    def _rows(self, text: str, told: Any) -> tuple[npt.NDArray[np.uint32], Rows] | None:
        """Token ids and their rows, None where the tokens that were told are not all the tokenizer's."""
        return None

    def _ask(self, request: Request, sampling: SamplingSpec, most: int) -> Mapping[str, Any]:
        answer = self._service.post(self.path, {"model": self._model, **self._body(request, sampling, most)})
        try:
            self._service.count(*self._usage(answer["usage"]))
        except MALFORMED:
            self._service.count(0, 0)  # some services tell no usage
        return answer

    def _without_rows(self, text: str) -> tuple[npt.NDArray[np.uint32], Rows]:
        tokens = np.asarray(self._tokenizer(text, add_special_tokens=False)["input_ids"], np.uint32)
        return tokens, Rows(empty_targets(len(tokens)), np.full(len(tokens), np.nan, np.float32))


class OpenaiChat(ChatService):
    """Chat completions of OpenAI and of the many that speak like it."""

    path = "/chat/completions"

    def __init__(self, service: Service, model: str, spec: StoreSpec, tokenizer: Tokenizer, asked: int) -> None:
        super().__init__(service, model, spec, tokenizer)
        self._asked = asked
        self._ids = ids_by_bytes(tokenizer) if asked else {}
        self._most = "max_tokens"

    def check(self) -> None:
        try:
            super().check()
        except InputError as error:
            # OpenAI's newer models refuse the name that all others know.
            if NEWER_NAME not in str(error):
                raise
            self._most = NEWER_NAME
            super().check()

    def _body(self, request: Request, sampling: SamplingSpec, most: int) -> dict[str, Any]:
        body: dict[str, Any] = {
            "messages": list(request.messages),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            self._most: most,
        }
        if request.tools:
            body["tools"] = list(request.tools)
        if self._asked:
            body |= {"logprobs": True, "top_logprobs": self._asked}
        return body

    def _usage(self, usage: Mapping[str, Any]) -> tuple[int, int]:
        return int(usage["prompt_tokens"]), int(usage["completion_tokens"])

    def _parse(self, answer: Mapping[str, Any]) -> tuple[str, bool, Any]:
        choice = answer["choices"][0]
        message, reason = choice["message"], choice.get("finish_reason")
        if reason == "content_filter" or message.get("refusal"):
            raise RefusedError(
                f"the service declines: {self._service.words(message.get('refusal') or 'content filter')}"
            )
        if message.get("tool_calls") or message.get("function_call"):
            raise RefusedError("the service calls a tool instead of answering")
        told = (choice.get("logprobs") or {}).get("content") if self._asked else None
        return str(message["content"] or ""), reason == "stop", told

    def _rows(self, text: str, told: Sequence[Mapping[str, Any]]) -> tuple[npt.NDArray[np.uint32], Rows] | None:
        ids = [self._id(token) for token in told]
        if None in ids:
            return None
        tokens = np.asarray(ids, np.uint32)
        if decode(tokens, self._tokenizer).strip() != text.strip():
            return None
        positions = [
            [(id_, float(each["logprob"])) for each in _likeliest(token) if (id_ := self._id(each)) is not None]
            for token in told
        ]
        own = np.minimum(np.asarray([token["logprob"] for token in told], np.float32), 0.0)
        return tokens, Rows(rows_from_told(positions, self._asked, self._spec.targets, self._spec.vocab_size), own)

    def _id(self, token: Mapping[str, Any]) -> int | None:
        data = token.get("bytes")
        return self._ids.get(bytes(data) if data is not None else token["token"].encode())


def _likeliest(token: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The likeliest tokens that were told of a position.

    vLLM puts the drawn token before the others, and where it is none of the likeliest leaves the last of them out.
    """
    told: Sequence[Mapping[str, Any]] = token.get("top_logprobs") or ()
    if len(told) > 1 and all(told[0]["logprob"] < each["logprob"] for each in told[1:]):
        return told[1:]
    return told
