"""A file of examples is read completely, refused with the line number, or read without the lines that are reported."""

import json
from pathlib import Path
from typing import Any

import pytest

from cache.errors import InputError
from cache.examples.example import Example
from cache.examples.files.jsonl import BadExample, read_examples, write_examples
from tests.cache.examples.chats import AGENT, CALL, TOOLS, turn


def test_prompt_and_messages_are_two_spellings(tmp_path: Path) -> None:
    path = tmp_path / "examples.jsonl"
    path.write_text(
        '{"prompt": "hi", "response": "hello"}\n\n'
        '{"id": "b", "messages": [{"role": "user", "content": "hi"}], "rationale": "r", "metadata": {"x": 1}}\n'
    )
    first, second = read_examples(path)
    assert first.messages == second.messages
    assert (first.id, first.response, second.rationale, second.metadata) == ("1", "hello", "r", {"x": 1})
    write_examples(tmp_path / "again.jsonl", [first, second])
    assert read_examples(tmp_path / "again.jsonl") == [first, second]


@pytest.mark.parametrize(
    "line, message",
    [
        ("not json", "line 2"),
        ("[1]", "line 2: is not a JSON object; give one object a line"),
        ('{"prompt": "a", "answer": "b"}', "line 2: unknown key 'answer'; known keys"),
        ('{"response": "b"}', "line 2: give exactly one of"),
        ('{"prompt": 3}', "line 2: 'prompt' must be text"),
        ('{"messages": []}', "line 2: the prompt must be"),
        ('{"prompt": null}', "line 2: give exactly one of 'messages' and 'prompt'"),
        ('{"prompt": "a", "prompt": "b"}', "line 2: has the key 'prompt' twice"),
        ('{"prompt": "a", "metadata": {"x": NaN}}', "line 2: contains NaN, which JSON does not allow"),
        ('{"prompt": "a", "metadata": {"x": -Infinity}}', "line 2: contains -Infinity"),
        ('{"prompt": "a", "metadata": {"x": 1e999}}', "line 2: contains the number 1e999, which is too large"),
        ('{"prompt": "a", "metadata": {"x": ' + "9" * 5000 + "}}", "line 2: contains a number of 5,000 digits"),
        ('{"prompt": "a", "metadata": ' + "[" * 100_000, "line 2: is nested too deeply"),
        ('{"prompt": ', "line 2: is not JSON: expecting value at character 13$"),
        ('{"prompt": "a", "id": 1.5}', "line 2: 'id' must be text or an integer"),
        ('{"prompt": "a", "id": true}', "line 2: 'id' must be text or an integer"),
        (
            '{"messages": [{"role": "user", "content": [{"type": "image"}]}]}',
            "turn 1: 'content' has a part that is not",
        ),
        (
            '{"messages": [{"role": "a", "content": null, "tool_calls": [{"name": "f", "arguments": "{2"}]}]}',
            "line 2: turn 1: 'arguments' of a tool call must be an object",
        ),
        ('{"prompt": "a", "response": 5}', "line 2: 'response' must be text"),
        ('{"prompt": "a", "label": 5}', "line 2: 'label' must be text"),
        ('{"prompt": "a", "tools": {}}', "line 2: 'tools' must be a list of objects"),
        ('{"prompt": "a", "tools": ["add"]}', "line 2: 'tools' must be a list of objects"),
        ('{"messages": [{"role": "user", "content": "a"}, 5]}', "line 2: turn 2: the prompt must be text, or turns"),
        ('{"messages": [{"content": "a"}]}', "line 2: turn 1: the prompt must be text, or turns"),
        ('{"messages": [{"role": "user"}]}', "line 2: turn 1: 'content' must be text; only a turn with 'tool_calls'"),
        ('{"messages": [{"role": "user", "content": 5, "tool_calls": [{}]}]}', "line 2: turn 1: 'content' must be"),
        ('{"messages": [{"role": "a", "content": null, "tool_calls": []}]}', "line 2: turn 1: 'content' must be"),
        ('{"messages": [{"role": "a", "content": "", "tool_calls": "x"}]}', "line 2: turn 1: 'tool_calls' must be"),
        ('{"messages": [{"role": "a", "content": "", "name": 5}]}', "line 2: turn 1: 'name' must be text"),
        ('{"prompt": "a", "metadata": []}', "line 2: 'metadata' must be an object"),
        ('{"prompt": "\udc80"}', r"line 2: is not UTF-8 text \(byte 13\)"),
        ('{"prompt": "\\ud83d"}', "line 2: .*half a surrogate pair"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "examples.jsonl"
    path.write_bytes(b'{"prompt": "fine"}\n' + line.encode("utf-8", "surrogateescape") + b"\n")
    with pytest.raises(InputError, match=message):
        read_examples(path)


@pytest.mark.parametrize("content, message", [(None, "no such file"), ("", "empty"), ("\n \n", "empty")])
def test_nothing_to_read_is_an_error(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "examples.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_examples(path)


def test_turns_keep_all_their_fields(tmp_path: Path) -> None:
    path = tmp_path / "examples.jsonl"
    messages: list[dict[str, Any]] = [
        turn("user", "hi", tool_calls=None, name=None),
        turn("assistant", None, tool_calls=[CALL], reasoning_content="must add"),
        {"role": "assistant", "tool_calls": [CALL]},
        turn("tool", "4", tool_call_id="c1", name="add", tool_calls=[]),
    ]
    path.write_text(json.dumps({"messages": messages, "tools": TOOLS, "label": "4"}) + "\n")
    [example] = read_examples(path)
    # What is empty is gone, since templates ask whether it is there; that nothing was said is itself said.
    assert example.messages == (
        {"role": "user", "content": "hi"},
        messages[1],
        messages[2],
        {"role": "tool", "content": "4", "tool_call_id": "c1", "name": "add"},
    )
    assert (example.tools, example.label) == (TOOLS, "4")


def test_a_written_file_brings_back_chats(tmp_path: Path) -> None:
    examples = [AGENT, Example("b", (turn("user", "ü"),), label="4")]
    write_examples(tmp_path / "again.jsonl", examples)
    assert read_examples(tmp_path / "again.jsonl") == examples


def test_bad_lines_are_handed_over_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "examples.jsonl"
    lines = [
        '{"prompt": "a"}',
        "not json",
        '{"id": "x", "prompt": 5}',
        "",
        '{"id": 12}',
        '{"id": "\\ud83d", "prompt": "a"}',
        '{"id": [], "prompt": "a", "tools": 1}',
        '{"id": "x", "prompt": "a"}',
        '{"id": "x", "prompt": "a"}',
    ]
    path.write_text("\n".join(lines))
    bad: list[BadExample] = []
    assert [example.id for example in read_examples(path, bad.append)] == ["1", "x", "x"]
    assert [(each.line, each.id) for each in bad] == [(2, "2"), (3, "x"), (5, "12"), (6, "6"), (7, "7")]
    assert bad[2].reason == "give exactly one of 'messages' and 'prompt'" and "surrogate" in bad[3].reason
    for each in bad:
        (each.id + each.reason).encode()  # may be written to a file


def test_files_of_other_programs_are_read(tmp_path: Path) -> None:
    """A byte-order mark, line ends of Windows, nulls of a table, contents as parts, arguments as JSON text."""
    path = tmp_path / "examples.jsonl"
    call = '{"function": {"name": "add", "arguments": %s}}'
    messages = '[{"role": "user", "content": %s}, {"role": "assistant", "content": null, "tool_calls": [' + call + "]}]"
    parts = '[{"type": "text", "text": "two "}, {"type": "text", "text": "and two"}]'
    lines = [
        '{"prompt": "a", "messages": null, "response": null, "metadata": null, "id": null, "tools": null}',
        '{"messages": ' + messages % (parts, '"{\\"a\\": 2}"') + "}",
        '{"messages": ' + messages % ('"two and two"', '{"a": 2}') + "}",
    ]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode() + b"\r\n")
    first, second, third = read_examples(path)
    assert first == Example("1", (turn("user", "a"),)) and not first.has_own_id
    assert second.messages == third.messages and second.messages[0]["content"] == "two and two"
    assert second.messages[1]["tool_calls"][0]["function"]["arguments"] == {"a": 2}


def test_a_file_of_bad_lines_only_is_refused_by_the_first(tmp_path: Path) -> None:
    path = tmp_path / "examples.jsonl"
    path.write_text('\n{"prompt": 5}\n[1]\n')
    bad: list[BadExample] = []
    with pytest.raises(InputError, match="line 2: 'prompt' must be text"):
        read_examples(path, bad.append)
    assert [each.line for each in bad] == [2, 3]
    path.write_text("\n")
    with pytest.raises(InputError, match="empty"):
        read_examples(path, bad.append)
