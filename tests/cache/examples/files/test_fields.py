"""Files whose keys have other names: `fields` says which is which."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from cache.examples.example import Example
from cache.examples.files.jsonl import BadExample, parse_window
from cache.examples.files.windows import read_windows

ROWS = [
    {"uid": f"q{i}", "question": f"how many {i}", "answer": {"text": f"{i}", "spans": [1, 2]}, "split": "train"}
    for i in range(5)
]
FIELDS = {"id": "uid", "prompt": "question", "response": "answer.text"}


def parsed(path: Path, fields: dict[str, str]) -> list[Example | BadExample]:
    return [item for window in read_windows(path, 2, fields) for item in parse_window(window)]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_named_fields_are_read_and_others_are_left_out(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"rows.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    else:
        pa.parquet.write_table(pa.Table.from_pylist(ROWS), path)
    examples = parsed(path, FIELDS)
    assert all(isinstance(each, Example) for each in examples)
    assert [(each.id, each.messages[0]["content"], each.response) for each in examples] == [  # type: ignore[union-attr]
        (row["uid"], row["question"], row["answer"]["text"])
        for row in ROWS  # type: ignore[index]
    ]
    unmapped = parsed(path, {})
    assert all(isinstance(each, BadExample) and "unknown key" in each.reason for each in unmapped)


def test_other_forms_may_be_named_too(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    (tmp_path / "rows.jsonl").write_text(json.dumps({"dialogue": turns, "a.b": "c"}) + "\n")
    (example,) = parsed(tmp_path / "rows.jsonl", {"conversations": "dialogue", "label": "a.b"})
    assert isinstance(example, Example) and [turn["content"] for turn in example.messages] == ["a", "b"]
    assert example.label == "c", "a key with a point in it is found as it is"


def test_a_line_without_a_named_field_says_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(
        '{"question": "a", "answer": null}\n{"q": "a"}\n{"question": "a", "answer": 3}\n'
    )
    null, missing, wrong = parsed(tmp_path / "rows.jsonl", {"prompt": "question", "response": "answer.text"})
    assert isinstance(null, Example) and null.response == "", "null is absent, also on the way to a name"
    assert isinstance(missing, BadExample) and missing.line == 2
    assert missing.reason == "has no 'question', which fields.prompt names; it has 'q'"
    assert isinstance(wrong, BadExample)
    (absent, *_) = parsed(tmp_path / "rows.jsonl", {"prompt": "question", "response": "answer"})
    assert isinstance(absent, Example) and absent.response == "", "null is absent"
