"""Examples as JSON Lines, or as rows of Parquet: one object per line with `messages` or `prompt`.

Optional keys: `rationale`, `response`, `label`, `tools`, `metadata`, `id`. Other forms of lines are in line_forms.py.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.errors import InputError
from cache.examples.example import Example
from cache.examples.files.json_line import parse_json_line
from cache.examples.files.line_forms import FORM_KEYS, own_keys, usual_form
from cache.examples.files.windows import Window, read_windows

KEYS = {"id", "messages", "prompt", "rationale", "response", "metadata", "label", "tools"}
# Lines that are read at once.
WINDOW = 2048
TURN_FORM = "turns of the form {'role': text, 'content': text}"


@dataclass(frozen=True, slots=True)
class BadExample:
    """A line that is not an example. id: as in the line, or its number; reason: without the location.

    source: the file's name if the input has several files.
    """

    line: int
    id: str
    reason: str
    source: str = ""

    @property
    def place(self) -> str:
        """Where the line is."""
        return f"{self.source}, line {self.line}" if self.source else f"line {self.line}"


def read_examples(path: str | Path, on_bad: Callable[[BadExample], None] | None = None) -> list[Example]:
    """All examples of a file, in its order; of a folder or a pattern, file after file. See read_windows for the forms.

    Several examples may have the same id. on_bad: called with each line that is not an example; reading continues.
    Without it, and if there is no example at all, the first such line raises InputError.
    """
    path = Path(path)
    examples: list[Example] = []
    first: BadExample | None = None
    for window in read_windows(path, WINDOW):
        for parsed in parse_window(window):
            if isinstance(parsed, Example):
                examples.append(parsed)
                continue
            first = first or parsed
            if on_bad is None:
                raise bad_line(path, parsed)
            on_bad(parsed)
    if not examples:
        raise bad_line(path, first) if first else no_examples(path)
    return examples


def parse_window(window: Window) -> Iterator[Example | BadExample]:
    """The examples of a window, and the lines that are none. Empty lines are passed over."""
    for number, line in enumerate(window.lines, start=window.first):
        if isinstance(line, dict) or line.strip():
            yield _parse_line(line, number, window.source, window.fields)


def bad_line(path: str | Path, line: BadExample) -> InputError:
    """The error of an input that ends at a line, or has no other."""
    return InputError(f"examples file {path}, {line.place}: {line.reason}")


def no_examples(path: str | Path) -> InputError:
    """The error of an input without a line."""
    return InputError(f"examples file {path}: empty; it needs at least one line with 'messages' or 'prompt'")


def write_examples(path: Path, examples: Iterable[Example]) -> None:
    """Write a file for read_examples, atomically: readers see the complete file or none."""
    draft = path.with_name(path.name + ".tmp")
    with draft.open("w", encoding="utf-8") as file:
        for example in examples:
            file.write(json.dumps(example.to_document(), ensure_ascii=False) + "\n")
    draft.replace(path)


def _parse_line(
    line: bytes | dict[str, Any], number: int, source: str, fields: Mapping[str, str]
) -> Example | BadExample:
    name = f"{source}:{number}" if source else str(number)
    default = name
    try:
        if isinstance(line, bytes) and number == 1 and line.lstrip(b"\xef\xbb\xbf \t").rstrip() == b"[":
            raise ValueError("is the start of a JSON array; give JSON Lines, one object a line")
        value = line if isinstance(line, dict) else parse_json_line(line, is_first=number == 1)
        if fields and isinstance(value, dict):
            value = own_keys(value, fields)
        if isinstance(value, dict) and isinstance(value.get("id"), str | int):
            name = str(value["id"])
        return _parse(value, default)
    except ValueError as error:
        return BadExample(number, name, str(error), source)


def _parse(value: Any, default_id: str) -> Example:
    if not isinstance(value, dict):
        raise ValueError('is not a JSON object; give one object a line, such as {"prompt": ..., "response": ...}')
    if unknown := sorted(set(value) - KEYS - FORM_KEYS):
        raise ValueError(f"unknown key {unknown[0]!r}; known keys: {', '.join(sorted(KEYS | FORM_KEYS))}")
    # Tables contain null for an absent value.
    value = usual_form({key: item for key, item in value.items() if item is not None})
    if ("messages" in value) == ("prompt" in value):
        raise ValueError("give exactly one of 'messages' and 'prompt'")
    if not isinstance(value.get("id", ""), str | int) or isinstance(value.get("id"), bool):
        raise ValueError("'id' must be text or an integer")
    if not isinstance(value.get("prompt", ""), str):
        raise ValueError("'prompt' must be text; turns go into 'messages'")
    messages = value["messages"] if "messages" in value else [{"role": "user", "content": value["prompt"]}]
    if not isinstance(messages, list) or not messages:
        raise ValueError(f"the prompt must be text, or {TURN_FORM}")
    for name in ("rationale", "response", "label"):
        if not isinstance(value.get(name, ""), str):
            raise ValueError(f"{name!r} must be text")
    if not isinstance(value.get("metadata", {}), dict):
        raise ValueError("'metadata' must be an object")
    if not _are_objects(value.get("tools", [])):
        raise ValueError("'tools' must be a list of objects, one schema each")
    return Example(
        id=str(value.get("id", default_id)),
        messages=tuple(_turn(turn, i) for i, turn in enumerate(messages, start=1)),
        rationale=value.get("rationale", ""),
        response=value.get("response", ""),
        metadata=value.get("metadata", {}),
        label=value.get("label", ""),
        tools=tuple(value.get("tools", [])),
        has_own_id="id" in value,
    )


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
