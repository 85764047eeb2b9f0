"""Examples as JSON Lines: one object a line with `messages` or `prompt`, and optional `rationale`, `response`."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cache.errors import InputError
from cache.example import Example

KEYS = {"id", "messages", "prompt", "rationale", "response", "metadata"}


def read_examples(path: str | Path) -> list[Example]:
    """All examples of a file. Raises InputError naming the line for anything that is not an example."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"examples file {path}: no such file; give the path of a JSON Lines file")
    examples = list(_parse_lines(path))
    if not examples:
        raise InputError(f"examples file {path}: empty; it needs at least one line with 'messages' or 'prompt'")
    return examples


def write_examples(path: Path, examples: Iterable[Example]) -> None:
    """Write a file that read_examples reads; it appears whole or not at all."""
    draft = path.with_name(path.name + ".tmp")
    with draft.open("w", encoding="utf-8") as file:
        for example in examples:
            fields = {**asdict(example), "messages": list(example.messages)}
            file.write(json.dumps(fields, ensure_ascii=False) + "\n")
    draft.replace(path)


def _parse_lines(path: Path) -> Iterator[Example]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    value = json.loads(line)
                    json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text
                    yield _parse(value, number)
                except (ValueError, RecursionError) as error:
                    raise InputError(f"examples file {path}, line {number}: {error}") from None


def _parse(value: Any, number: int) -> Example:
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, found {type(value).__name__}")
    if unknown := sorted(set(value) - KEYS):
        raise ValueError(f"unknown key {unknown[0]!r}; known keys: {', '.join(sorted(KEYS))}")
    if ("messages" in value) == ("prompt" in value):
        raise ValueError("give exactly one of 'messages' and 'prompt'")
    messages = value.get("messages", [{"role": "user", "content": value.get("prompt")}])
    if not isinstance(messages, list) or not messages or not all(_is_turn(turn) for turn in messages):
        raise ValueError("the prompt must be text, or turns of the form {'role': text, 'content': text}")
    for name in ("rationale", "response"):
        if not isinstance(value.get(name, ""), str):
            raise ValueError(f"{name!r} must be text")
    if not isinstance(value.get("metadata", {}), dict):
        raise ValueError("'metadata' must be an object")
    return Example(
        id=str(value.get("id", number)),
        messages=tuple({"role": turn["role"], "content": turn["content"]} for turn in messages),
        rationale=value.get("rationale", ""),
        response=value.get("response", ""),
        metadata=value.get("metadata", {}),
    )


def _is_turn(turn: Any) -> bool:
    return isinstance(turn, dict) and all(isinstance(turn.get(name), str) for name in ("role", "content"))
