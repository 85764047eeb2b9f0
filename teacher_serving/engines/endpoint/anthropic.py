"""Anthropic's messages: turns in, text out."""

from collections.abc import Mapping
from typing import Any

from cache.rows.spec import SamplingSpec
from teacher_serving.engines.endpoint.chat import ChatService
from teacher_serving.engines.endpoint.client import RefusedError
from teacher_serving.teacher import Request


class AnthropicMessages(ChatService):
    """Anthropic's messages: text alone."""

    path = "/v1/messages"

    def _body(self, request: Request, sampling: SamplingSpec, most: int) -> dict[str, Any]:
        if request.tools:
            raise RefusedError("its tools are not in the form of this service")
        turns = [dict(turn) for turn in request.messages]
        system = [str(turn["content"]) for turn in turns if turn.get("role") == "system"]
        others = [turn for turn in turns if turn.get("role") != "system"]
        if turns[: len(system)] != [turn for turn in turns if turn.get("role") == "system"]:
            raise RefusedError("a system turn after other turns has no place in this service")
        if odd := [turn for turn in others if turn.get("role") not in ("user", "assistant") or turn.get("tool_calls")]:
            raise RefusedError(f"a turn of role {odd[0].get('role')!r} with tools has no place in this service")
        body: dict[str, Any] = {
            "max_tokens": most,
            "messages": [{"role": turn["role"], "content": turn.get("content") or ""} for turn in others],
        }
        if system:
            body["system"] = "\n\n".join(system)
        # Some models take one of the two at most, and some neither: what is the default is left out.
        if sampling.temperature != 1.0:
            body["temperature"] = sampling.temperature
        if sampling.top_p != 1.0:
            body["top_p"] = sampling.top_p
        return body

    def _usage(self, usage: Mapping[str, Any]) -> tuple[int, int]:
        return int(usage["input_tokens"]), int(usage["output_tokens"])

    def _parse(self, answer: Mapping[str, Any]) -> tuple[str, bool, Any]:
        reason = answer["stop_reason"]
        if reason in ("refusal", "tool_use", "pause_turn"):
            raise RefusedError(f"the service gives no answer: {reason}")
        text = "".join(block["text"] for block in answer["content"] if block["type"] == "text")
        return text, reason in ("end_turn", "stop_sequence"), None
