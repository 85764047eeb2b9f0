"""OpenAI's chat completions: chat turns in; text out, with the most likely tokens and their bytes."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cache.examples.token_bytes import ids_by_bytes
from cache.examples.tokenizers import Tokenizer, decode
from cache.rows.spec import SamplingSpec, StoreSpec
from teacher_serving.asking.json_schemas import response_format
from teacher_serving.engines.endpoint.chat import AnswerTokens, ChatAnswer, ChatService
from teacher_serving.engines.endpoint.client import Service
from teacher_serving.engines.endpoint.failures import RefusedError
from teacher_serving.engines.endpoint.rows import own_logprobs, rows_from_top_logprobs
from teacher_serving.reduction.rows import Rows
from teacher_serving.teacher import Request

# OpenAI's newer models accept the limit of new tokens only under the second name. Other services know the first.
LIMIT_KEY, NEWER_LIMIT_KEY = "max_tokens", "max_completion_tokens"
# What models write before and after their reasoning.
_TAGS = re.compile(r"(\s|</?[\w:|-]{1,30}>|\[/?[A-Z]{1,30}\]|◁/?\w{1,30}▷)*")


class OpenaiChat(ChatService):
    """Chat completions of OpenAI and of services with the same API.

    top_logprobs: requested for each token. schema_form: see EndpointSettings.
    """

    path = "/chat/completions"

    def __init__(
        self,
        service: Service,
        model: str,
        spec: StoreSpec,
        tokenizer: Tokenizer,
        top_logprobs: int,
        schema_form: str = "json_schema",
    ) -> None:
        super().__init__(service, model, spec, tokenizer)
        self._top_logprobs, self._schema_form = top_logprobs, schema_form
        self._ids = ids_by_bytes(tokenizer) if top_logprobs else {}
        self._limit_key = LIMIT_KEY

    def check(self) -> None:
        """See ChatService.check. Also finds out the name of the limit of new tokens."""
        try:
            super().check()
        except RefusedError as error:
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
            **response_format(sampling, self._schema_form),
        }
        if request.tools:
            body["tools"] = list(request.tools)
        if self._top_logprobs:
            body |= {"logprobs": True, "top_logprobs": self._top_logprobs}
        return body

    def _parse(self, answer: Mapping[str, Any]) -> ChatAnswer:
        choice = answer["choices"][0]
        message, reason = choice["message"], choice.get("finish_reason")
        if reason == "content_filter" or message.get("refusal"):
            text = self._service.clean_text(message.get("refusal") or "content filter")
            raise RefusedError(f"the service declined: {text}")
        if message.get("tool_calls") or message.get("function_call"):
            raise RefusedError("the service called a tool instead of answering")
        logprobs = (choice.get("logprobs") or {}).get("content") if self._top_logprobs else None
        text, reasoning = _split_content(message)
        return ChatAnswer(text, reason == "stop", logprobs or None, reasoning)

    def _make_rows(self, answer: ChatAnswer) -> AnswerTokens | None:
        entries: Sequence[Mapping[str, Any]] = answer.logprobs
        ids = [self._find_id(entry) for entry in entries]
        start = self._find_answer(entries, ids, answer)
        if start is None:
            return None
        if None in ids[:start]:  # the reasoning is then tokenised without rows
            ids, entries, start = ids[start:], entries[start:], 0
        positions = [
            [(id_, float(each["logprob"])) for each in _most_likely(entry) if (id_ := self._find_id(each)) is not None]
            for entry in entries
        ]
        token_logprobs = own_logprobs([entry["logprob"] for entry in entries])
        targets = rows_from_top_logprobs(positions, self._top_logprobs, self._spec.targets, self._spec.vocab_size)
        return AnswerTokens(np.asarray(ids, np.uint32), Rows(targets, token_logprobs), start)

    def _find_answer(
        self, entries: Sequence[Mapping[str, Any]], ids: Sequence[int | None], answer: ChatAnswer
    ) -> int | None:
        """Find the first token of the answer: services may list the tokens of the reasoning before it.

        Returns None if the tokens do not spell the answer, not with ids of the tokenizer, or after other text than the
        reasoning: their rows would belong to another context.
        """
        text = answer.text.strip()
        if self._spell(ids) == text:
            return 0
        end = len(ids)
        while end and self._spell(ids[end - 1 : end]) == "":
            end -= 1  # tokens that end a turn
        pieces = [_token_bytes(entry) for entry in entries[:end]]
        written = b"".join(pieces).rstrip()
        first = len(written) - len(text.encode())
        before, reasoning, after = written[:first].decode(errors="replace").partition(answer.reasoning.strip() or "\0")
        if first < 0 or written[first:] != text.encode() or not reasoning or not _TAGS.fullmatch(before + after):
            return None
        starts = np.cumsum([0, *map(len, pieces)])
        token = int(np.searchsorted(starts, first, side="right")) - 1
        is_answer = not written[starts[token] : first].strip() and self._spell(ids[token:]) == text
        return token if is_answer else None

    def _spell(self, ids: Sequence[int | None]) -> str | None:
        """The text of token ids, stripped; None if one is unknown."""
        return None if None in ids else decode(np.asarray(ids, np.uint32), self._tokenizer).strip()

    def _find_id(self, token: Mapping[str, Any]) -> int | None:
        """Find the tokenizer's id of a token by its bytes."""
        return self._ids.get(_token_bytes(token))


def _token_bytes(token: Mapping[str, Any]) -> bytes:
    """The bytes of a token. Some services give only its text."""
    data = token.get("bytes")
    if data is not None:
        return bytes(data)
    text: str = token["token"]
    return text.encode()


def _split_content(message: Mapping[str, Any]) -> tuple[str, str]:
    """The text of a message, and the reasoning that comes beside it.

    Names of the reasoning: DeepSeek's and older vLLM's `reasoning_content`; `reasoning` of vLLM, OpenRouter and others.
    Mistral's content is a list of parts, of which some are the reasoning.
    """
    content, reasoning = message.get("content"), ""
    for name in ("reasoning_content", "reasoning"):
        value = message.get(name)
        reasoning = reasoning or (value if isinstance(value, str) else "")
    if content is None:
        return "", reasoning
    if isinstance(content, str):
        return content, reasoning
    text = "".join(part["text"] for part in content if part["type"] == "text")
    thoughts = [part["thinking"] for part in content if part["type"] == "thinking"]
    for thought in thoughts:
        reasoning += thought if isinstance(thought, str) else "".join(part["text"] for part in thought)
    return text, reasoning


def _most_likely(token: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the most likely tokens of a position.

    vLLM lists the sampled token first. If it is not among the most likely ones, vLLM drops the last of those for it.
    """
    entries: Sequence[Mapping[str, Any]] = token.get("top_logprobs") or ()
    if len(entries) > 1 and all(entries[0]["logprob"] < entry["logprob"] for entry in entries[1:]):
        return entries[1:]
    return entries
