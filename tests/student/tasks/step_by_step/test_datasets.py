"""The files of the published code, of its fork, and what is wrong with bad ones."""

import json
from pathlib import Path
from typing import Any

import pytest

from cache.errors import InputError
from student.tasks.step_by_step.datasets import DATA_SETS, read_split
from tests.student.tasks.step_by_step.files import SVAMP, write_lines

NLI = {"premise": "A man sleeps.", "hypothesis": "A man runs.", "label": 2}
CQA = {"id": "q", "question": "Where is a cat?", "choices": ["a", "b", "mat", "d", "e"], "answer": "mat"}
ROWS: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "svamp": (SVAMP[0], SVAMP[0]["input"], "( 5.0 - 2.0 )", ""),
    "asdiv": (
        {"Body": "Six apples.", "Question": "How many?", "Formula": "6", "Answer": "6 (apples)"},
        *("Six apples.\nHow many?", "6", ""),
    ),
    "esnli": (
        NLI | {"explanation_1": "Sleeping is not running."},
        *("A man sleeps.</s>A man runs.", "contradiction", "Sleeping is not running."),
    ),
    "anli1": (NLI | {"uid": "u", "reason": ""}, "A man sleeps.</s>A man runs.", "contradiction", ""),
    "anli3": (
        NLI | {"label": "neutral", "reason": "Who knows."},
        "A man sleeps.</s>A man runs.",
        "neutral",
        "Who knows.",
    ),
    "cqa": (
        CQA | {"abstractive_explanation": "Cats sit on mats."},
        "Where is a cat?\nAnswer Choices:\n(a) a\n(b) b\n(c) mat\n(d) d\n(e) e",
        *("mat", "Cats sit on mats."),
    ),
    "generic": (
        {"input": "Who?", "label": "Patient?given=John", "rationale": "By name."},
        "Who?",
        "Patient?given=John",
        "By name.",
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_each_data_set_is_read_in_its_own_form(tmp_path: Path, name: str) -> None:
    row, text, label, rationale = ROWS[name]
    write_lines(tmp_path / name / f"{name}_train.json", [row, row])
    items = read_split(DATA_SETS[name], tmp_path, "train", "</s>")
    assert [item.id for item in items] == [f"{name}-train-0", f"{name}-train-1"]
    assert (items[0].input, items[0].label, items[0].rationale) == (text, label, rationale)
    assert items[0].is_equation == (name in ("svamp", "asdiv"))


def test_the_generic_files_of_the_fork_are_printed_over_several_lines(tmp_path: Path) -> None:
    path = tmp_path / "generic" / "generic_test.json"
    path.parent.mkdir()
    path.write_text("\n".join(json.dumps(ROWS["generic"][0], indent=4) for _ in range(3)))
    assert len(read_split(DATA_SETS["generic"], tmp_path, "test", "")) == 3


@pytest.mark.parametrize(
    "name, change, message",
    [
        ("svamp", {"label": None}, r"svamp_train\.json, line 2: 'label' is None, not a text"),
        ("svamp", {"input": " "}, r"line 2: 'input' is ' ', not a text"),
        ("svamp", {"label": "forty two"}, r"svamp_train\.json, line 2: label 'forty two' is no equation with a value"),
        ("svamp", {"label": "( 84.0 / 0 )"}, r"line 2: label '\( 84\.0 / 0 \)' is no .*: divides by zero"),
        ("generic", {"rationale": 3}, r"line 2: 'rationale' is 3, not a text"),
        ("esnli", {"label": 3}, r"line 2: 'label' is 3, neither 0, 1, 2 nor one of entailment"),
        ("esnli", {"label": True}, r"line 2: 'label' is True, neither"),
        ("anli1", {"label": "maybe"}, r"line 2: 'label' is 'maybe', neither"),
        ("cqa", {"choices": ["a"]}, r"line 2: 'choices' is \['a'\], not 5 texts"),
        ("cqa", {"answer": "dog"}, r"line 2: 'answer' is 'dog', none of the choices"),
    ],
)
def test_bad_data_end_with_file_and_line(tmp_path: Path, name: str, change: dict[str, Any], message: str) -> None:
    row = ROWS[name][0]
    write_lines(tmp_path / name / f"{name}_train.json", [row, row | change])
    with pytest.raises(InputError, match=message):
        read_split(DATA_SETS[name], tmp_path, "train", "</s>")


def test_a_missing_key_and_a_line_that_is_no_object_are_named(tmp_path: Path) -> None:
    path = tmp_path / "svamp" / "svamp_train.json"
    write_lines(path, [{"input": "x"}])
    with pytest.raises(InputError, match=r"line 1: has no 'label'; it has 'input'"):
        read_split(DATA_SETS["svamp"], tmp_path, "train", "")
    path.write_text('"text"\n')
    with pytest.raises(InputError, match=r"line 1: is not a JSON object"):
        read_split(DATA_SETS["svamp"], tmp_path, "train", "")
    with pytest.raises(InputError, match=r"svamp_valid\.json: no such file"):
        read_split(DATA_SETS["svamp"], tmp_path, "valid", "")
