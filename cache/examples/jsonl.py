"""Examples as JSON Lines: one object per line with `messages` or `prompt`.

Optional keys: `rationale`, `response`, `label`, `tools`, `metadata`, `id`. Lines with `instruction`, `input` and
`output`, the form of Alpaca's data, are read too: the prompt is the instruction, an empty line and the input.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.errors import InputError
from cache.examples.example import Example
from cache.examples.json_line import parse_json_line

KEYS = {"id", "messages", "prompt", "rationale", "response", "metadata", "label", "tools"}
# The form {instruction, input, output}: the prompt in two parts, and the response.
INSTRUCTION_KEYS = ("instruction", "input", "output")
TURN_FORM = "turns of the form {'role': text, 'content': text}"


@dataclass(frozen=True, slots=True)
class BadExample:
    """A line that is not an example. id: as in the line, or its number; reason: without the location."""

    line: int
    id: str
    reason: str


def read_examples(path: str | Path, on_bad: Callable[[BadExample], None] | None = None) -> list[Example]:
    """All examples of a file, in its order. Several examples may have the same id.

    on_bad: called with each line that is not an example; reading continues. Without it, and if there is no example at
    all, the first such line raises InputError.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"examples file {path}: no such file; give the path of a JSON Lines file")
    examples: list[Example] = []
    first: BadExample | None = None
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            parsed = _parse_line(line, number) if line.strip() else None
            if isinstance(parsed, Example):
                examples.append(parsed)
            elif parsed:
                first = first or parsed
                if on_bad is None:
                    break
                on_bad(parsed)
    if first and (on_bad is None or not examples):
        raise InputError(f"examples file {path}, line {first.line}: {first.reason}")
    if not examples:
        raise InputError(f"examples file {path}: empty; it needs at least one line with 'messages' or 'prompt'")
    return examples


def write_examples(path: Path, examples: Iterable[Example]) -> None:
    """Write a file for read_examples, atomically: readers see the complete file or none."""
    draft = path.with_name(path.name + ".tmp")
    with draft.open("w", encoding="utf-8") as file:
        for example in examples:
            file.write(json.dumps(example.to_document(), ensure_ascii=False) + "\n")
    draft.replace(path)


def _parse_line(line: bytes, number: int) -> Example | BadExample:
    name = str(number)
    try:
        value = parse_json_line(line, is_first=number == 1)
        if isinstance(value, dict) and isinstance(value.get("id"), str | int):
            name = str(value["id"])
        return _parse(value, number)
    except ValueError as error:
        return BadExample(number, name, str(error))


def _parse(value: Any, number: int) -> Example:
    if not isinstance(value, dict):
        raise ValueError('is not a JSON object; give one object a line, such as {"prompt": ..., "response": ...}')
    if unknown := sorted(set(value) - KEYS - set(INSTRUCTION_KEYS)):
        raise ValueError(f"unknown key {unknown[0]!r}; known keys: {', '.join(sorted(KEYS | set(INSTRUCTION_KEYS)))}")
    # Tables contain null for an absent value.
    value = {key: item for key, item in value.items() if item is not None}
    if set(INSTRUCTION_KEYS) & set(value):
        value = _from_instruction(value)
    if ("messages" in value) == ("prompt" in value):
        raise ValueError("give exactly one of 'messages' and 'prompt'")
    if not isinstance(value.get("id", ""), str | int) or isinstance(value.get("id"), bool):
        raise ValueError("'id' must be text or an integer")
    messages = value["messages"] if "messages" in value else [{"role": "user", "content": value["prompt"]}]
    if not isinstance(messages, list) or not messages or not isinstance(value.get("prompt", ""), str):
        raise ValueError(f"the prompt must be text, or {TURN_FORM}")
    for name in ("rationale", "response", "label"):
        if not isinstance(value.get(name, ""), str):
            raise ValueError(f"{name!r} must be text")
    if not isinstance(value.get("metadata", {}), dict):
        raise ValueError("'metadata' must be an object")
    if not _are_objects(value.get("tools", [])):
        raise ValueError("'tools' must be a list of objects, one schema each")
    return Example(
        id=str(value.get("id", number)),
        messages=tuple(_turn(turn, i) for i, turn in enumerate(messages, start=1)),
        rationale=value.get("rationale", ""),
        response=value.get("response", ""),
        metadata=value.get("metadata", {}),
        label=value.get("label", ""),
        tools=tuple(value.get("tools", [])),
        has_own_id="id" in value,
    )


def _from_instruction(value: dict[str, Any]) -> dict[str, Any]:
    """The line with a prompt and a response. The metadata keep instruction and input for an export."""
    if other := [key for key in ("messages", "prompt", "rationale", "response") if key in value]:
        raise ValueError(
            f"{other[0]!r} cannot stand beside 'instruction', 'input' or 'output'; give one of the two forms"
        )
    parts = {key: value.pop(key, "") for key in INSTRUCTION_KEYS}
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


def _turn(turn: Any, number: int) -> dict[str, Any]:
    """The turn for the chat template: all keys as in the file, but for empty ones."""
    if not isinstance(turn, dict) or not isinstance(turn.get("role"), str):
        raise ValueError(f"turn {number}: the prompt must be text, or {TURN_FORM}")
    # Tables contain null or [] for absent keys, but templates test for presence. A content of null has a meaning.
    fields = {key: value for key, value in turn.items() if key == "content" or value not in (None, [])}
    if not _are_objects(fields.get("tool_calls", [])):
        raise ValueError(f"turn {number}: 'tool_calls' must be a list of objects")
    if isinstance(fields.get("content"), list):
        fields["content"] = _text_of_parts(fields["content"], number)
    if not isinstance(fields.get("content"), str) and (fields.get("content") is not None or "tool_calls" not in fields):
        raise ValueError(f"turn {number}: 'content' must be text; only a turn with 'tool_calls' may omit it")
    for key in ("name", "tool_call_id", "reasoning_content"):
        if not isinstance(fields.get(key, ""), str):
            raise ValueError(f"turn {number}: {key!r} must be text")
    if "tool_calls" in fields:
        fields["tool_calls"] = [_tool_call(call, number) for call in fields["tool_calls"]]
    return fields


def _text_of_parts(parts: list[Any], number: int) -> str:
    """The text of a content that is a list of parts, as in OpenAI's API."""
    texts = [part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(
            f"turn {number}: 'content' has a part that is not of the form {{'type': 'text', 'text': text}}"
        )
    return "".join(map(str, texts))


def _tool_call(call: dict[str, Any], number: int) -> dict[str, Any]:
    """The call with its arguments as an object: OpenAI's API writes them as JSON text, but templates need an object."""
    has_wrapper = isinstance(call.get("function"), dict)
    function = dict(call["function"]) if has_wrapper else dict(call)
    if isinstance(function.get("arguments"), str):
        try:
            function["arguments"] = parse_json_line(function["arguments"].encode() or b"{}")
        except ValueError:
            function["arguments"] = None
    if not isinstance(function.get("arguments", {}), dict):
        raise ValueError(f"turn {number}: 'arguments' of a tool call must be an object, or JSON text of one")
    return {**call, "function": function} if has_wrapper else function


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)
