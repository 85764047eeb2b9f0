"""Anthropic's messages API: chat turns in, text out."""

import json
from collections.abc import Mapping
from typing import Any

from cache.rows.spec import SamplingSpec
from teacher_serving.asking.json_schemas import SCHEMA_NAME
from teacher_serving.engines.endpoint.chat import ChatAnswer, ChatService
from teacher_serving.engines.endpoint.failures import RefusedError
from teacher_serving.teacher import Request


class AnthropicMessages(ChatService):
    """Anthropic's messages API. It returns text without log-probabilities.

    With a JSON schema the answer is the arguments of a tool that the model must call, written as JSON.
    """

    path = "/v1/messages"

    def _build_body(self, request: Request, sampling: SamplingSpec, max_tokens: int) -> dict[str, Any]:
        if request.tools:
            raise RefusedError("tools of an example cannot be sent to this service: it uses another schema")
        turns = [dict(turn) for turn in request.messages]
        system = [str(turn["content"]) for turn in turns if turn.get("role") == "system"]
        others = [turn for turn in turns if turn.get("role") != "system"]
        if turns[: len(system)] != [turn for turn in turns if turn.get("role") == "system"]:
            raise RefusedError("this service accepts a system turn only before all other turns")
        for turn in others:
            if turn.get("role") not in ("user", "assistant") or turn.get("tool_calls"):
                raise RefusedError(f"this service does not accept a turn of role {turn.get('role')!r} with tools")
        body: dict[str, Any] = {
            "max_tokens": max_tokens,
            "messages": [{"role": turn["role"], "content": turn.get("content") or ""} for turn in others],
        }
        body |= _forced_tool(sampling)
        if system:
            body["system"] = "\n\n".join(system)
        # Some models accept only one of the two, some neither. The default value is not sent.
        if sampling.temperature != 1.0:
            body["temperature"] = sampling.temperature
        if sampling.top_p != 1.0:
            body["top_p"] = sampling.top_p
        return body

    def _parse(self, answer: Mapping[str, Any]) -> ChatAnswer:
        reason = answer["stop_reason"]
        blocks = answer["content"]
        called = [block for block in blocks if block["type"] == "tool_use" and block["name"] == SCHEMA_NAME]
        if called:
            text = json.dumps(called[0]["input"], ensure_ascii=False)
            return ChatAnswer(text, reason in ("tool_use", "end_turn"), None)
        if reason in ("refusal", "tool_use", "pause_turn"):
            raise RefusedError(f"the service did not answer: {reason}")
        text = "".join(block["text"] for block in blocks if block["type"] == "text")
        reasoning = "\n\n".join(block["thinking"] for block in blocks if block["type"] == "thinking")
        return ChatAnswer(text, reason in ("end_turn", "stop_sequence"), None, reasoning)


def _forced_tool(sampling: SamplingSpec) -> dict[str, Any]:
    """The keys `tools` and `tool_choice` of Anthropic's API: one tool that must be called; nothing without a schema."""
    if not sampling.json_schema:
        return {}
    tool = {
        "name": SCHEMA_NAME,
        "description": "Takes the answer.",
        "input_schema": json.loads(sampling.json_schema),
    }
    return {"tools": [tool], "tool_choice": {"type": "tool", "name": SCHEMA_NAME}}
