"""Lines of {instruction, input, output} are examples, and a store gives them back as they were."""

import json
from pathlib import Path
from typing import Any

import pytest

from cache.errors import InputError
from cache.examples.example import Example
from cache.examples.files.jsonl import read_examples
from cache.exchange.instruction import export_instruction, instruction_line
from tests.cache.store.sample_stores import make_store

LINES = [
    {"instruction": "Extract.", "input": "Doctor: Hi.\n\nPatient: Ö.", "output": '{"a": 1}'},
    {"instruction": "Two\n\nparagraphs.", "input": "", "output": "yes"},
    {"instruction": "Say A.", "input": "now", "output": ""},
]


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_lines_come_back_as_they_were(tmp_path: Path) -> None:
    examples = read_examples(write(tmp_path / "a.jsonl", LINES))
    assert examples[0].messages[0]["content"] == "Extract.\n\nDoctor: Hi.\n\nPatient: Ö."
    assert [example.response for example in examples] == ['{"a": 1}', "yes", ""]
    assert [instruction_line(example) for example in examples] == LINES


def test_other_chats_are_divided_or_left_out() -> None:
    user = {"role": "user", "content": "first\n\nrest\n\nmore"}
    assert instruction_line(Example("1", (user,), "r ", "a")) == {
        "instruction": "first",
        "input": "rest\n\nmore",
        "output": "r a",
    }
    system, answer = {"role": "system", "content": "S"}, {"role": "assistant", "content": "A"}
    assert instruction_line(Example("2", (system, user, answer))) == {
        "instruction": "S",
        "input": "first\n\nrest\n\nmore",
        "output": "A",
    }
    assert instruction_line(Example("3", (user, answer, user), "", "x")) is None
    assert instruction_line(Example("4", (user,), "", "x", tools=({"name": "f"},))) is None


def test_a_store_is_exported_with_every_example(tmp_path: Path) -> None:
    store = make_store(tmp_path / "source", units=1)
    assert export_instruction(store, tmp_path / "out.jsonl") == 0
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["output"] for line in lines] == [e.rationale + e.response for e in store.texts(slice(None))]


def test_an_output_that_is_an_object_is_read_as_json(tmp_path: Path) -> None:
    """Records are written both ways: as text, and as they are."""
    file = tmp_path / "records.jsonl"
    file.write_text(json.dumps({"instruction": "a", "output": {"name": "Zoë", "age": 4}}) + "\n")
    (example,) = read_examples(file)
    assert example.response == '{"name": "Zoë", "age": 4}'


@pytest.mark.parametrize(
    "line, message",
    [
        ({"instruction": "a", "prompt": "b"}, "'prompt' cannot stand beside 'instruction'"),
        ({"instruction": "a", "response": "b"}, "'response' cannot stand beside"),
        ({"input": "a", "output": "b"}, "'instruction' must be given"),
        ({"instruction": " ", "output": "b"}, "'instruction' must be given"),
        ({"instruction": "a", "output": ["x"]}, "'output' must be text"),
        ({"instruction": "a", "metadata": 3}, "'metadata' must be an object"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=rf"line 2: {message}"):
        read_examples(write(tmp_path / "a.jsonl", [LINES[0], line]))
