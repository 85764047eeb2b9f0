"""Forms in which published data has examples, turned into the project's own keys."""

import json
from collections.abc import Mapping
from typing import Any

# The form {instruction, input, output} of Alpaca's data: the prompt in two parts, and the response.
INSTRUCTION_KEYS = ("instruction", "input", "output")
# The form of ShareGPT: turns under "conversations", each with "from" and "value", perhaps with a "system" text.
CONVERSATION_KEYS = ("conversations", "system")
FORM_KEYS = frozenset(INSTRUCTION_KEYS + CONVERSATION_KEYS)
# The names of roles in ShareGPT's form.
ROLE_OF = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
}


def own_keys(value: Mapping[str, Any], fields: Mapping[str, str]) -> dict[str, Any]:
    """A line with only the keys that `fields` names, under the project's own names.

    fields: by own key, that of the line; a point leads into an object, as in {"response": "answer.text"}.
    Raises ValueError if the line lacks one. A value that is null counts as absent.
    """
    found: dict[str, Any] = {}
    for own, theirs in fields.items():
        item: Any = value if theirs not in value else {theirs: value[theirs]}
        for part in [theirs] if theirs in value else theirs.split("."):
            if item is None:
                break
            if not isinstance(item, Mapping) or part not in item:
                raise ValueError(f"has no {theirs!r}, which fields.{own} names; it has {', '.join(map(repr, value))}")
            item = item[part]
        if item is not None:
            found[own] = item
    return found


def usual_form(value: dict[str, Any]) -> dict[str, Any]:
    """A line in the project's own keys. Raises ValueError, in plain words, for a line of two forms or a wrong one."""
    if set(INSTRUCTION_KEYS) & set(value):
        return _from_instruction(value)
    if set(CONVERSATION_KEYS) & set(value):
        return _from_conversation(value)
    return value


def _from_instruction(value: dict[str, Any]) -> dict[str, Any]:
    """The line with a prompt and a response. The metadata keep instruction and input for an export."""
    if other := [key for key in ("messages", "prompt", "rationale", "response") if key in value]:
        raise ValueError(
            f"{other[0]!r} cannot stand beside 'instruction', 'input' or 'output'; give one of the two forms"
        )
    parts = {key: value.pop(key, "") for key in INSTRUCTION_KEYS}
    if isinstance(parts["output"], dict):  # a record
        parts["output"] = json.dumps(parts["output"], ensure_ascii=False)
    for key, text in parts.items():
        if not isinstance(text, str):
            raise ValueError(f"{key!r} must be text")
    if not parts["instruction"].strip():
        raise ValueError("'instruction' must be given, as text that is not empty")
    if not isinstance(value.get("metadata", {}), dict):
        raise ValueError("'metadata' must be an object")
    prompt = "\n\n".join(filter(None, (parts["instruction"], parts["input"])))
    kept = {"instruction": parts["instruction"], "input": parts["input"]}
    return {**value, "prompt": prompt, "response": parts["output"], "metadata": {**value.get("metadata", {}), **kept}}


def _from_conversation(value: dict[str, Any]) -> dict[str, Any]:
    """The line with messages. The last turn, if it is the assistant's, is the response that is scored."""
    if "conversations" not in value:
        raise ValueError(
            "'system' stands beside 'conversations' only; give a turn with the role 'system' in 'messages'"
        )
    if other := [key for key in ("messages", "prompt") if key in value]:
        raise ValueError(f"{other[0]!r} cannot stand beside 'conversations'; give one of the two forms")
    system, turns = value.pop("system", ""), value.pop("conversations")
    if not isinstance(system, str) or not isinstance(turns, list):
        raise ValueError("'conversations' must be a list of turns with 'from' and 'value', and 'system' text")
    messages = [{"role": "system", "content": system}] if system else []
    for number, turn in enumerate(turns, start=1):
        # Some sets have the keys of chat templates under this name.
        speaker, text = _speaker_and_text(turn)
        if not isinstance(speaker, str) or not isinstance(text, str):
            raise ValueError(f"turn {number}: must have the texts 'from' and 'value'")
        if speaker not in ROLE_OF:
            raise ValueError(f"turn {number}: unknown speaker {speaker!r}; known: {', '.join(ROLE_OF)}")
        messages.append({"role": ROLE_OF[speaker], "content": text})
    return {**value, "messages": messages}


def _speaker_and_text(turn: Any) -> tuple[Any, Any]:
    if not isinstance(turn, dict):
        return None, None
    return turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))
