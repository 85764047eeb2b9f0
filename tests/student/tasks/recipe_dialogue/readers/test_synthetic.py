"""The grammar makes the same dialogues for the same seed, and every answer is taken from its line."""

from student.tasks.recipe_dialogue.readers.synthetic import synthetic_conversations
from student.tasks.text_scores import normalise


def test_the_same_seed_gives_the_same_and_more_recipes_change_nothing() -> None:
    few, many = synthetic_conversations(5, 0), synthetic_conversations(9, 0)
    assert few.turns == [turn for turn in many.turns if turn.recipe in few.recipes]
    assert synthetic_conversations(5, 1).turns != few.turns


def test_an_answer_contains_its_line_or_a_number_of_it() -> None:
    data = synthetic_conversations(40, 3)
    texts = {passage.id: passage.text for recipe in data.recipes.values() for passage in recipe.passages}
    for turn in data.turns:
        (line,) = turn.evidence
        answer, source = normalise(turn.answer).split(), normalise(texts[line]).split()
        numbers = [word for word in answer if word.isdigit()]
        assert set(numbers) <= set(source), turn
        assert numbers or set(source[1:]) <= set(answer), turn
