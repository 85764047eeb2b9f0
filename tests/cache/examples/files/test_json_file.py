"""A data set comes as JSON Lines, as objects over several lines, or as one array: all are read, with their lines."""

from pathlib import Path

import pytest

from cache.errors import InputError
from cache.examples.files.json_file import read_json_values

FORMS = {
    "lines": '{"a": 1}\n\n{"a": "ü"}\n[3]\n',
    "without a last line end": '{"a": 1}\n\n{"a": "ü"}\n[3]',
    "line ends of Windows": '{"a": 1}\r\n\r\n{"a": "ü"}\r\n[3]\r\n',
    "a byte-order mark": '\ufeff{"a": 1}\n\n{"a": "ü"}\n[3]\n',
    "over several lines": '{\n"a": 1} {\n"a": "ü"\n}\n[3]',
    "an array": ' [{"a": 1},\n\n{"a": "ü"},\n [3]]\n',
}
LINES = {"over several lines": [1, 2, 5]}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_values(tmp_path: Path, form: str) -> None:
    path = tmp_path / "data.json"
    path.write_bytes(FORMS[form].encode())
    values = read_json_values(path, "data file")
    assert [each.value for each in values] == [{"a": 1}, {"a": "ü"}, [3]]
    assert [each.line for each in values] == LINES.get(form, [1, 3, 4])


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", r"data\.json: is empty"),
        (b" \n", r"data\.json: is empty"),
        (b"[]", r"data\.json: is empty"),
        (b'{"a": 1}\n{"a": }\n', r"line 2: is not JSON: expecting value at character 7"),
        (b'{"a": 1}\n{"a": NaN}\n', r"line 2: contains NaN"),
        (b'{"a": 1}\n\n{"a": 1, "a": 2}\n', r"line 3: has the key 'a' twice"),
        (b'{"a": 1}\n"\\ud800"\n', r"line 2: contains half a surrogate pair"),
        (b'{"a": 1}\n{"a": "\xff"}\n', r"line 2: is not UTF-8"),
        (b"[1,\n2 3]", r"line 2: is not JSON: expecting ',' or '\]'"),
        (b"[1,\n2", r"line 2: is not JSON"),
        (b"[1]\n[2]", r"line 2: is not JSON: more text after the array"),
        (b"[1,\n]", r"line 2: is not JSON"),
        (b"[" * 100_000, r"line 1: is nested too deeply"),
    ],
)
def test_bad_data_end_with_file_and_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "data.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_json_values(path, "data file")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data file .*absent\.json: no such file"):
        read_json_values(tmp_path / "absent.json", "data file")
