"""Examples are the same from every kind of file, and every line keeps its place."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from cache.errors import InputError
from cache.examples.example import Example
from cache.examples.files.jsonl import BadExample, parse_window, read_examples
from cache.examples.files.windows import input_bytes, read_windows

LINES: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": f"say {i} " + "x" * (i % 90)}], "response": str(i)} for i in range(300)
]
TEXT = "".join(json.dumps(line) + "\n" for line in LINES).encode()


def write(folder: Path, kind: str) -> Path:
    path = folder / f"examples{kind}"
    if kind == ".jsonl.gz":
        path.write_bytes(gzip.compress(TEXT))
    elif kind == ".jsonl.zst":
        with pa.CompressedOutputStream(str(path), "zstd") as stream:
            stream.write(TEXT)
    elif kind == ".parquet":
        pa.parquet.write_table(pa.Table.from_pylist(LINES), path, row_group_size=70)
    else:
        path.write_bytes(TEXT)
    return path


@pytest.mark.parametrize("kind", [".jsonl", ".json", ".txt", ".jsonl.gz", ".jsonl.zst", ".parquet"])
@pytest.mark.parametrize("size", [1, 7, 300, 1000])
def test_examples_are_the_same_from_every_kind_of_file(tmp_path: Path, kind: str, size: int) -> None:
    path = write(tmp_path, kind)
    windows = list(read_windows(path, size))
    if kind != ".parquet":  # its windows end with its groups of rows, too
        assert [window.first for window in windows] == list(range(1, 301, size))
    read = [window.bytes_read for window in windows]
    assert read == sorted(read) and read[-1] == input_bytes(path)
    examples = [example for window in windows for example in parse_window(window)]
    assert all(isinstance(example, Example) for example in examples)
    assert [example.id for example in examples] == [str(i) for i in range(1, 301)]
    expected = read_examples(write(tmp_path, ".jsonl"))
    assert [example.to_document() for example in examples] == [example.to_document() for example in expected]


def test_files_of_a_folder_or_a_pattern_are_read_by_name(tmp_path: Path) -> None:
    for name, text in (("b", "two"), ("a", "one")):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"prompt": text}) + "\n[]\n")
    (tmp_path / "notes.md").write_text("no examples")
    for path in (tmp_path, tmp_path / "?.jsonl"):
        bad: list[BadExample] = []
        examples = read_examples(path, bad.append)
        assert [(e.id, e.messages[0]["content"]) for e in examples] == [("a.jsonl:1", "one"), ("b.jsonl:1", "two")]
        assert [line.place for line in bad] == ["a.jsonl, line 2", "b.jsonl, line 2"]
        with pytest.raises(InputError, match=r"a.jsonl, line 2: is not a JSON object"):
            read_examples(path)


@pytest.mark.parametrize(
    ("path", "message"),
    [("none.jsonl", "no such file"), ("*.jsonl", "no file has such a name"), ("", "has no file that")],
)
def test_what_is_not_there_is_named(tmp_path: Path, path: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_examples(tmp_path / path)


@pytest.mark.parametrize("kind", [".jsonl.gz", ".jsonl.zst", ".parquet"])
def test_a_damaged_file_is_an_error_with_its_name(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, kind)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=f"examples{kind}.*(cannot be read|is not Parquet)"):
        read_examples(path)


def test_conversations_of_sharegpt_become_messages(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    named = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    lines = [{"conversations": turns, "system": "Be kind."}, {"conversations": named, "id": "x"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    first, second = read_examples(tmp_path / "a.jsonl")
    assert first.messages == ({"role": "system", "content": "Be kind."}, *second.messages)
    assert list(second.messages) == named and second.is_trace and second.id == "x"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"conversations": [{"from": "bot", "value": "Hi"}]}, "turn 1: unknown speaker 'bot'; known: human"),
        ({"conversations": [{"from": "human"}]}, "turn 1: must have the texts"),
        ({"conversations": "Hi"}, "must be a list of turns"),
        ({"conversations": [], "prompt": "Hi"}, "'prompt' cannot stand beside 'conversations'"),
        ({"system": "Hi", "prompt": "Hi"}, "'system' stands beside 'conversations' only"),
    ],
)
def test_a_wrong_conversation_is_explained(tmp_path: Path, line: dict[str, Any], reason: str) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(InputError, match=f"line 1: .*{reason}"):
        read_examples(tmp_path / "a.jsonl")


@pytest.mark.parametrize("place", [30, 2000])
def test_a_damaged_file_names_the_line(tmp_path: Path, place: int) -> None:
    damaged = bytearray(gzip.compress(TEXT, compresslevel=0 if place == 2000 else 9))
    damaged[place] ^= 0xFF
    (tmp_path / "examples.jsonl.gz").write_bytes(damaged)
    with pytest.raises(InputError, match=r"examples.jsonl.gz, line \d+: cannot be read"):
        list(read_windows(tmp_path / "examples.jsonl.gz", 7))


def test_a_json_array_is_named_as_one(tmp_path: Path) -> None:
    (tmp_path / "examples.json").write_text(json.dumps(LINES[:3], indent=1))
    with pytest.raises(InputError, match="line 1: is the start of a JSON array; give JSON Lines"):
        read_examples(tmp_path / "examples.json")
