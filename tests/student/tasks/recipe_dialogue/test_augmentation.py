"""What a teacher writes for a turn is parsed in the forms that models use, and refused with a reason otherwise."""

import pytest

from student.tasks.recipe_dialogue.augmentation import (
    Augmented,
    augmentation_chat,
    augmented_turns,
    parse_augmentation,
)
from student.tasks.recipe_dialogue.dialogue import Turn

FIVE = ("How hot is it?", "How long?", "Which pan?", "How many eggs?", "What next?")
EXPECTED = Augmented("How hot must the oven be for the pie?", "It must be 400 degrees.", FIVE)
HEAD = "Question: How hot must the oven be for the pie?\nAnswer: It must be\n400 degrees.\n"


@pytest.mark.parametrize(
    "text",
    [
        f"{HEAD}Follow-ups:\n" + "\n".join(f"{i}. {text}" for i, text in enumerate(FIVE, 1)),
        f"Sure!\n**Better {HEAD[:10]}**{HEAD[10:]}\n**Follow-up questions:**\n"
        + "\n".join(f"- {text}" for text in FIVE),
        f"{HEAD}Followups:\n"
        + "\n".join(f"{i}) Question: {text}" for i, text in enumerate((*FIVE, FIVE[0].upper()), 1)),
        '```json\n{"Question": "How hot must the oven be for the pie?", "Answer": "It must be 400 degrees.",'
        + ' "Followup": [{"Question": "How hot is it?", "Answer": "y"}, "How long?", "Which pan?", "How many eggs?",'
        + ' "What next?"]}\n```',
    ],
)
def test_forms_that_models_write(text: str) -> None:
    assert parse_augmentation(text) == EXPECTED


def test_of_more_than_ten_follow_ups_the_first_are_kept() -> None:
    text = f"{HEAD}Follow-ups:\n" + "\n".join(f"{i}. Which {i}?" for i in range(1, 14))
    parsed = parse_augmentation(text)
    assert isinstance(parsed, Augmented) and parsed.follow_ups == tuple(f"Which {i}?" for i in range(1, 11))


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "no improved question"),
        ("I cannot do this.", "no improved question"),
        ("Question: How hot?\nFollow-ups:\n1. x", "no improved answer"),
        (f"{HEAD}Follow-ups:\n1. Which?\n2. WHICH\n3. How?", "2 different follow-ups, fewer than 5"),
        (
            '{"Question": "How?", "Answer": "So.", "Followup": {"Question": "x"}}',
            "0 different follow-ups, fewer than 5",
        ),
    ],
)
def test_a_text_without_all_parts_is_refused(text: str, reason: str) -> None:
    assert parse_augmentation(text) == reason


def test_the_chat_shows_recipe_question_and_answer_after_an_example_that_is_parsed() -> None:
    chat = augmentation_chat(Turn("1", "r", (), "How hot?", "400."), "Pie\n- Heat to 400 degrees.")
    assert [turn["role"] for turn in chat] == ["user", "assistant", "user"]
    assert "Heat to 400 degrees." in chat[-1]["content"] and "Question: How hot?\nAnswer: 400." in chat[-1]["content"]
    shown = parse_augmentation(chat[1]["content"])
    assert isinstance(shown, Augmented) and len(shown.follow_ups) == 6
    form = chat[-1]["content"].partition("Use this form:\n")[2]
    assert parse_augmentation(form) == "2 different follow-ups, fewer than 5"


def test_turns_of_what_was_written_and_counts_of_the_rest() -> None:
    turn = Turn("a", "r", (("user", "Hi"), ("assistant", "Hello")), "How hot?", "400.", ("r/1",), ("400",))
    text = f"{HEAD}Follow-ups:\n" + "\n".join(f"{i}. {text}" for i, text in enumerate(FIVE, 1))
    turns, counts = augmented_turns([("a", text), ("a", "no"), ("b", text), ("a", "nothing")], {"a": turn})
    assert counts == {"used": 1, "refused: no improved question": 2, "of a turn that is not in train": 1}
    better, *follow_ups = turns
    assert (better.question, better.answer, better.evidence) == (EXPECTED.question, EXPECTED.answer, ("r/1",))
    assert [follow_up.question for follow_up in follow_ups] == list(FIVE)
    assert all((one.answer, one.evidence, one.history) == ("", (), ()) for one in follow_ups)
    assert len({one.id for one in turns}) == 6
