"""The triad by embeddings, with a real encoder: a right answer scores above a wrong one, an empty one scores 0."""

import pytest

from student.tasks.recipe_dialogue.triad import embedding_triad, judge_questions, sentences_of, supports
from tests.real_data import real_encoder

PASSAGES = ["Preheat the oven to 400 degrees F.", "3 eggs", "Beat the eggs in a large bowl."]
QUESTION = "How hot must the oven be?"


def test_a_right_answer_scores_above_a_wrong_one() -> None:
    encoder = str(real_encoder())
    right = embedding_triad(encoder, QUESTION, PASSAGES, "Heat it to 400 degrees.")
    wrong = embedding_triad(encoder, QUESTION, PASSAGES, "The train leaves at noon.")
    assert right["groundedness"] > wrong["groundedness"] + 0.2
    assert right["answer_relevance"] > wrong["answer_relevance"] + 0.2
    assert right["context_relevance"] == wrong["context_relevance"]
    other = embedding_triad(encoder, "Who won the race?", PASSAGES, "x")
    assert right["context_relevance"] > other["context_relevance"]


def test_empty_answers_and_prompts_without_passages() -> None:
    encoder = str(real_encoder())
    assert embedding_triad(encoder, QUESTION, PASSAGES, " ")["groundedness"] == 0.0
    assert list(embedding_triad(encoder, QUESTION, [], "400")) == ["answer_relevance"]
    assert supports(encoder, PASSAGES, "") == []


def test_each_sentence_is_supported_by_the_nearest_passage() -> None:
    found = supports(str(real_encoder()), PASSAGES, "Beat the eggs. Then heat the oven to 400 F!")
    assert [(text, passage) for text, passage, _ in found] == [
        ("Beat the eggs.", 2),
        ("Then heat the oven to 400 F!", 0),
    ]


@pytest.mark.parametrize(
    "text, sentences",
    [("Beat it. Then bake it!", ["Beat it.", "Then bake it!"]), ("Add 1.5 cups", ["Add 1.5 cups"]), ("  ", [])],
)
def test_sentences(text: str, sentences: list[str]) -> None:
    assert sentences_of(text) == sentences


def test_the_question_about_the_context_does_not_show_the_answer() -> None:
    questions = judge_questions(QUESTION, PASSAGES, "ANSWER")
    assert "ANSWER" not in questions["context_relevance"].messages[0]["content"]
    assert "ANSWER" in questions["groundedness"].messages[0]["content"]
    assert QUESTION not in questions["groundedness"].messages[0]["content"]
