"""Conversations in the public form of Wizard of Tasks are read with and without recipes; bad ones name the place."""

import json
from pathlib import Path
from typing import Any

import pytest

from cache.errors import InputError
from student.tasks.recipe_dialogue.dialogue import Conversations
from student.tasks.recipe_dialogue.readers.wizard_of_tasks import read_wizard_of_tasks

ADDRESS = "https://www.example.org/recipes/herb-labneh"
TURNS: list[dict[str, Any]] = [
    {"role": "student", "text": "What do I need?", "turn_counter": 1, "shared_data": [], "relevant": "yes"},
    {
        "role": "teacher",
        "text": "Here is the list!",
        "shared_data": ["2 cups yogurt", "1 spoon oil"],
        "relevant": "yes",
    },
    {"role": "student", "text": None},
    {"role": "student", "text": "And then?"},
    {"role": "teacher", "text": "You could fly.", "shared_data": None, "relevant": "no"},
    {"role": "teacher", "text": "Drain it.", "shared_data": ["Drain the yogurt."]},
]


def read(root: Path, conversation: Any = None, recipes: Any = None) -> Conversations:
    (root / "wot.json").write_text(
        json.dumps({"food-1": conversation or {"document_url": ADDRESS, "data_split": "test", "turns": TURNS}})
    )
    if recipes is not None:
        (root / "recipes.json").write_text(json.dumps(recipes))
    return read_wizard_of_tasks(root / "wot.json", root / "recipes.json" if recipes is not None else None)


def test_a_recipe_without_a_file_is_what_teachers_showed(tmp_path: Path) -> None:
    data = read(tmp_path)
    (recipe,) = data.recipes.values()
    assert [passage.text for passage in recipe.passages] == [
        "herb labneh", "2 cups yogurt", "1 spoon oil", "Drain the yogurt."
    ]  # fmt: skip
    (turn,) = data.turns
    assert (turn.question, turn.answer, turn.split) == ("What do I need?", "Here is the list!", "test")
    assert turn.evidence == (f"{ADDRESS}/1", f"{ADDRESS}/2") and turn.spans == ("2 cups yogurt", "1 spoon oil")
    assert data.left_out == {
        "turn without a text": 1,
        "answer that is marked as not relevant": 1,
        "utterance of the teacher without a question before it": 1,
    }


def test_recipes_of_a_file(tmp_path: Path) -> None:
    recipe = {"title": "Labneh", "ingredients": ["2 cups yogurt"], "steps": ["Drain the yogurt.", "Serve."]}
    data = read(tmp_path, recipes={ADDRESS: recipe, "https://other": recipe})
    assert [passage.text for passage in data.recipes[ADDRESS].passages] == [
        "Labneh", "2 cups yogurt", "Drain the yogurt.", "Serve."
    ]  # fmt: skip
    assert data.turns[0].evidence == (f"{ADDRESS}/1",)
    assert data.left_out["recipe without a conversation"] == 1


@pytest.mark.parametrize(
    "conversation, message",
    [
        ({"data_split": "test", "turns": []}, "conversation 'food-1': has no field 'document_url'"),
        ({"document_url": ADDRESS, "data_split": "dev", "turns": []}, "'data_split' is 'dev'; known splits"),
        ({"document_url": ADDRESS, "data_split": "test", "turns": [{"text": "x"}]}, "turn 0: has no field 'role'"),
        (
            {"document_url": ADDRESS, "data_split": "test", "turns": [{"role": "chef", "text": "x"}]},
            "turn 0: 'role' is 'chef'; known roles: student, teacher",
        ),
        (
            {"document_url": ADDRESS, "data_split": "test", "turns": [{"role": "teacher", "shared_data": [1]}]},
            "turn 0: 'shared_data' must be a list of texts",
        ),
    ],
)
def test_a_bad_conversation_is_named_with_the_place(tmp_path: Path, conversation: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, conversation)
    assert message in str(caught.value) and "wot.json" in str(caught.value)
