"""OpenAI's chat completions: chat turns in; text out, with the most likely tokens and their bytes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import InputError
from cache.examples.token_bytes import ids_by_bytes
from cache.examples.tokenizers import Tokenizer, decode
from cache.rows.spec import SamplingSpec, StoreSpec
from teacher_serving.engines.endpoint.chat import ChatAnswer, ChatService
from teacher_serving.engines.endpoint.client import RefusedError, Service
from teacher_serving.engines.endpoint.rows import rows_from_top_logprobs
from teacher_serving.reduction.reducer import Rows
from teacher_serving.teacher import Request

# OpenAI's newer models accept the limit of new tokens only under the second name. Other services know the first.
LIMIT_KEY, NEWER_LIMIT_KEY = "max_tokens", "max_completion_tokens"


class OpenaiChat(ChatService):
    """Chat completions of OpenAI and of services with the same API. top_logprobs: requested for each token."""

    path = "/chat/completions"

    def __init__(self, service: Service, model: str, spec: StoreSpec, tokenizer: Tokenizer, top_logprobs: int) -> None:
        super().__init__(service, model, spec, tokenizer)
        self._top_logprobs = top_logprobs
        self._ids = ids_by_bytes(tokenizer) if top_logprobs else {}
        self._limit_key = LIMIT_KEY

    def check(self) -> None:
        """See ChatService.check. Also finds out the name of the limit of new tokens."""
        try:
            super().check()
        except InputError as error:
            if NEWER_LIMIT_KEY not in str(error):
                raise
            self._limit_key = NEWER_LIMIT_KEY
            super().check()

    def _build_body(self, request: Request, sampling: SamplingSpec, max_tokens: int) -> dict[str, Any]:
        body: dict[str, Any] = {
            "messages": list(request.messages),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            self._limit_key: max_tokens,
        }
        if request.tools:
            body["tools"] = list(request.tools)
        if self._top_logprobs:
            body |= {"logprobs": True, "top_logprobs": self._top_logprobs}
        return body

    def _parse_usage(self, usage: Mapping[str, Any]) -> tuple[int, int]:
        return int(usage["prompt_tokens"]), int(usage["completion_tokens"])

    def _parse(self, answer: Mapping[str, Any]) -> ChatAnswer:
        choice = answer["choices"][0]
        message, reason = choice["message"], choice.get("finish_reason")
        if reason == "content_filter" or message.get("refusal"):
            text = self._service.clean_text(message.get("refusal") or "content filter")
            raise RefusedError(f"the service declined: {text}")
        if message.get("tool_calls") or message.get("function_call"):
            raise RefusedError("the service called a tool instead of answering")
        logprobs = (choice.get("logprobs") or {}).get("content") if self._top_logprobs else None
        return ChatAnswer(str(message["content"] or ""), reason == "stop", logprobs)

    def _make_rows(
        self, text: str, logprobs: Sequence[Mapping[str, Any]]
    ) -> tuple[npt.NDArray[np.uint32], Rows] | None:
        ids = [self._find_id(token) for token in logprobs]
        if None in ids:
            return None
        tokens = np.asarray(ids, np.uint32)
        if decode(tokens, self._tokenizer).strip() != text.strip():
            return None
        positions = [
            [(id_, float(each["logprob"])) for each in _most_likely(token) if (id_ := self._find_id(each)) is not None]
            for token in logprobs
        ]
        token_logprobs = np.minimum(np.asarray([token["logprob"] for token in logprobs], np.float32), 0.0)
        targets = rows_from_top_logprobs(positions, self._top_logprobs, self._spec.targets, self._spec.vocab_size)
        return tokens, Rows(targets, token_logprobs)

    def _find_id(self, token: Mapping[str, Any]) -> int | None:
        """Find the tokenizer's id of a token by its bytes."""
        data = token.get("bytes")
        return self._ids.get(bytes(data) if data is not None else token["token"].encode())


def _most_likely(token: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the most likely tokens of a position.

    vLLM lists the sampled token first. If it is not among the most likely ones, vLLM drops the last of those for it.
    """
    entries: Sequence[Mapping[str, Any]] = token.get("top_logprobs") or ()
    if len(entries) > 1 and all(entries[0]["logprob"] < entry["logprob"] for entry in entries[1:]):
        return entries[1:]
    return entries
