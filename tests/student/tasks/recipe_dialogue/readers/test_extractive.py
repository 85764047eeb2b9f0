"""Questions with spans, in the public form of Wizard of Tasks Extractive; bad ones name the place."""

import json
from pathlib import Path
from typing import Any

import pytest

from cache.errors import InputError
from student.tasks.recipe_dialogue.dialogue import Conversations
from student.tasks.recipe_dialogue.readers.wizard_of_tasks import read_wizard_of_tasks
from tests.real_data import real_data

QUESTION = {
    "conversation_id": "food-4", "domain": "cooking", "document_url": "https://x/pasta", "data_split": "test",
    "question": "How long do I grill it?", "original_answer": "3 to 5 minutes, until it&#39;s tender.",
    "history": "student: Is it hot | cold? | teacher: Preheat the grill.",
    "extracted_answer": "3 to 5 minutes\\nPreheat the GRILL",
    "task_data": "{'title': 'Saut&eacute;ed Pasta', 'description': '', 'ingredients': ['6 spears'], "
    "'steps': ['Preheat the grill.', 'Grill 3 to 5 minutes on each side.']}",
}  # fmt: skip


def read(root: Path, **changes: Any) -> Conversations:
    for split in ("train", "validation", "test"):
        items = [{**QUESTION, **changes}, {**QUESTION, "domain": "diy"}] if split == "test" else []
        (root / f"{split}.json").write_text(json.dumps(items))
    return read_wizard_of_tasks(root)


def test_a_question_with_its_recipe_and_spans(tmp_path: Path) -> None:
    data = read(tmp_path)
    (turn,), (recipe,) = data.turns, data.recipes.values()
    assert [passage.text for passage in recipe.passages] == [
        "Sautéed Pasta", "6 spears", "Preheat the grill.", "Grill 3 to 5 minutes on each side."
    ]  # fmt: skip
    assert turn.evidence == ("https://x/pasta/2", "https://x/pasta/3") and turn.spans[0] == "3 to 5 minutes"
    assert turn.answer == "3 to 5 minutes, until it's tender." and turn.split == "test"
    assert turn.history == (("user", "Is it hot | cold?"), ("assistant", "Preheat the grill."))
    assert data.left_out == {"of the domain diy": 1}
    assert read(tmp_path, history="None").turns[0].history == ()


def test_a_span_is_found_as_whole_words(tmp_path: Path) -> None:
    """Would catch "5 minutes" in a line of 15 minutes."""
    steps = "['Boil for 15 minutes.', 'Simmer 25 minutes.', 'Rest (5 Minutes).']"
    task_data = f"{{'title': 'Rice', 'ingredients': ['rice'], 'steps': {steps}}}"
    (turn,) = read(tmp_path, extracted_answer="5 minutes", task_data=task_data).turns
    assert turn.evidence == ("https://x/pasta/4",)


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"task_data": "{'title': open('x')}"},
            "test.json, question 0: 'task_data' is not the text of a Python literal",
        ),
        ({"task_data": "{'title': 'x', 'steps': []}"}, "question 0, task_data: has no field 'ingredients'"),
        ({"history": "hello"}, "question 0: 'history' does not begin with"),
        ({"question": " "}, "question 0: 'question' or 'original_answer' is empty"),
        ({"data_split": "train"}, "'data_split' is 'train' in a file of 'test'"),
    ],
)
def test_a_bad_question_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, **changes)
    assert message in str(caught.value)


def test_the_real_data_set_is_read_whole() -> None:
    data = read_wizard_of_tasks(real_data("wote"))
    assert (len(data.turns), len(data.recipes), sum(bool(turn.evidence) for turn in data.turns)) == (364, 204, 317)
    assert data.left_out == {"of the domain diy": 465}
