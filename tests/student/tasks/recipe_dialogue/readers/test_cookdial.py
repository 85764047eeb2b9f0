"""CookDial's files are read as they are, and a file of another form ends with its name and the place."""

import json
from pathlib import Path
from typing import Any

import pytest

from cache.errors import InputError
from student.tasks.recipe_dialogue.readers.cookdial import evidence_lines, read_cookdial
from tests.real_data import real_data

RECIPE = {
    "id": "000",
    "title": "Nut  Pie",
    "content": [
        {"id": "ing-0", "text": "3 eggs", "type": "ingredient", "eamr": ""},
        {"id": "inst-0", "text": "0) Beat the eggs.", "type": "instruction", "eamr": ""},
    ],
}
MESSAGES = [
    {"utt_id": "utt-0", "utterance": "What do I need?", "bot": False, "annotations": "{}"},
    {"utt_id": "utt-1", "utterance": "Three\neggs.", "bot": True, "annotations": "inform_ingredient(ing-0);"},
    {"utt_id": "utt-2", "utterance": "And then?", "bot": False, "annotations": "{}"},
    {
        "utt_id": "utt-3",
        "utterance": "Beat them.",
        "bot": True,
        "annotations": "affirm();\r\ninform_instruction(ac-0-1);",
    },
    {"utt_id": "utt-4", "utterance": "Thanks!", "bot": False, "annotations": "{}"},
]


def folder(root: Path, recipe: Any = RECIPE, messages: Any = MESSAGES) -> Path:
    for name, value in (("recipe/000_Nut_Pie.json", recipe), ("dialog/000.1.json", {"messages": messages})):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
    return root


def test_questions_answers_and_their_lines(tmp_path: Path) -> None:
    data = read_cookdial(folder(tmp_path))
    first, second = data.turns
    assert (first.question, first.answer, first.evidence) == ("What do I need?", "Three eggs.", ("000/ing-0",))
    assert (second.answer, second.evidence, second.history) == (
        "Beat them.",
        ("000/inst-0",),
        (("user", "What do I need?"), ("assistant", "Three eggs.")),
    )
    assert [passage.text for passage in data.recipes["000"].passages] == ["Nut Pie", "3 eggs", "0) Beat the eggs."]
    assert data.left_out == {"question without an answer": 1}


def test_a_byte_order_mark_and_line_ends_of_windows_are_read(tmp_path: Path) -> None:
    text = json.dumps(RECIPE, indent=1).replace("\n", "\r\n").encode()
    assert read_cookdial(folder(tmp_path, b"\xef\xbb\xbf" + text)).recipes["000"].title == "Nut Pie"


def test_a_recipe_twice_is_refused_and_one_without_a_dialogue_is_counted(tmp_path: Path) -> None:
    folder(tmp_path)
    other = tmp_path / "recipe/001_Cake.json"
    other.write_text(json.dumps({**RECIPE, "id": "001"}))
    assert read_cookdial(tmp_path).left_out["recipe without a dialogue"] == 1
    other.write_text(json.dumps(RECIPE))
    with pytest.raises(InputError, match=r"001_Cake\.json: the recipe id '000' is that of .*000_Nut_Pie\.json too"):
        read_cookdial(tmp_path)


def changed(number: int, **fields: Any) -> list[dict[str, Any]]:
    return [{**message, **(fields if i == number else {})} for i, message in enumerate(MESSAGES)]


@pytest.mark.parametrize(
    "files, message",
    [
        ({"messages": []}, "000.1.json: 'messages' is empty"),
        ({"messages": changed(1, utterance=" ")}, "000.1.json, message 1: 'utterance' is empty"),
        ({"messages": changed(1, bot="yes")}, "message 1: 'bot' must be true or false, not str"),
        ({"messages": changed(1, annotations="inform(ing-7);")}, "message 1: the action frame names '000/ing-7'"),
        ({"messages": changed(1, annotations="inform ing-0")}, "message 1: 'inform ing-0' is no action"),
        ({"messages": [{"bot": True}]}, "message 0: has no field 'utterance'"),
        ({"messages": {}}, "'messages' must be a list, not dict"),
        ({"recipe": {"id": "000", "title": "x"}}, "000_Nut_Pie.json: has no field 'content'"),
        ({"recipe": {**RECIPE, "content": RECIPE["content"][:1] * 2}}, "two lines of the recipe have the same id"),  # type: ignore[index]
        ({"recipe": b"{"}, "000_Nut_Pie.json: is not JSON"),
        ({"recipe": {**RECIPE, "id": "001"}}, "000.1.json: no recipe 000_"),
    ],
)
def test_a_bad_file_is_named_with_the_place(tmp_path: Path, files: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_cookdial(folder(tmp_path, **files))
    assert message in str(caught.value)


def test_a_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no folder 'dialog'"):
        read_cookdial(tmp_path)


@pytest.mark.parametrize(
    "frame, lines",
    [
        ("greeting();\r\ninform_title(title);", ["title"]),
        ("repeat(inst-2, [ing-3]);", ["inst-2", "ing-3"]),
        ("inform_temperature(temp-0-1);inform_tool(tool-12-0)", ["inst-0", "inst-12"]),
        ("fence();", []),
    ],
)
def test_lines_of_an_action_frame(frame: str, lines: list[str]) -> None:
    assert evidence_lines(frame, "here") == lines


def test_the_real_data_set_is_read_whole() -> None:
    data = read_cookdial(real_data("cookdial") / "data")
    assert (len(data.recipes), len(data.turns), sum(map(bool, (turn.evidence for turn in data.turns)))) == (
        260,
        4473,
        3696,
    )
    assert data.left_out == {"question without an answer": 137}
