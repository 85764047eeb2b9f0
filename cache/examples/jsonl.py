"""Examples as JSON Lines: one object per line with `messages` or `prompt`.

Optional keys: `rationale`, `response`, `label`, `tools`, `metadata`, `id`.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.errors import InputError
from cache.examples.example import Example

KEYS = {"id", "messages", "prompt", "rationale", "response", "metadata", "label", "tools"}
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
        value = json.loads(line)
        if isinstance(value, dict) and isinstance(value.get("id"), str | int):
            name = str(value["id"]).encode(errors="replace").decode()
        json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate cannot be encoded
        return _parse(value, number)
    except (ValueError, RecursionError) as error:
        return BadExample(number, name, str(error))


def _parse(value: Any, number: int) -> Example:
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, not {type(value).__name__}")
    if unknown := sorted(set(value) - KEYS):
        raise ValueError(f"unknown key {unknown[0]!r}; known keys: {', '.join(sorted(KEYS))}")
    if ("messages" in value) == ("prompt" in value):
        raise ValueError("give exactly one of 'messages' and 'prompt'")
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
    )


def _turn(turn: Any, number: int) -> dict[str, Any]:
    """The turn for the chat template: all keys as in the file, but for empty ones."""
    if not isinstance(turn, dict) or not isinstance(turn.get("role"), str):
        raise ValueError(f"turn {number}: the prompt must be text, or {TURN_FORM}")
    # Tables contain null or [] for absent keys, but templates test for presence. A content of null has a meaning.
    fields = {key: value for key, value in turn.items() if key == "content" or value not in (None, [])}
    if not _are_objects(fields.get("tool_calls", [])):
        raise ValueError(f"turn {number}: 'tool_calls' must be a list of objects")
    if not isinstance(fields.get("content"), str) and (fields.get("content") is not None or "tool_calls" not in fields):
        raise ValueError(f"turn {number}: 'content' must be text; only a turn with 'tool_calls' may omit it")
    for key in ("name", "tool_call_id", "reasoning_content"):
        if not isinstance(fields.get(key, ""), str):
            raise ValueError(f"turn {number}: {key!r} must be text")
    return fields


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)
