"""A file of examples is read whole, or refused with the number of the line."""

from pathlib import Path

import pytest

from cache.errors import InputError
from cache.examples_file import read_examples, write_examples


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
        ("[1]", "line 2: expected a JSON object, found list"),
        ('{"prompt": "a", "answer": "b"}', "line 2: unknown key 'answer'; known keys"),
        ('{"response": "b"}', "line 2: give exactly one of"),
        ('{"prompt": 3}', "line 2: the prompt must be text"),
        ('{"messages": []}', "line 2: the prompt must be"),
        ('{"prompt": "a", "response": 5}', "line 2: 'response' must be text"),
        ('{"prompt": "a", "metadata": []}', "line 2: 'metadata' must be an object"),
        ('{"prompt": "\udc80"}', "line 2"),
        ('{"prompt": "\\ud83d"}', "line 2: .*surrogates not allowed"),
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
