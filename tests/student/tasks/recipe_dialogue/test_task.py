"""The whole task without an encoder: examples with passages, scores by hand, the report's panels and charts."""

from typing import Any

import pytest

from cache.errors import InputError
from cache.examples.example import Example
from student.tasks.recipe_dialogue.page import charts, separation
from student.tasks.recipe_dialogue.task import RecipeDialogue


def quiet(done: int, total: int) -> None: ...


@pytest.fixture(scope="module")
def task() -> RecipeDialogue:
    return RecipeDialogue(retrieval="bm25", compare=("oracle",), dialogues=30, triad=False)


def test_examples_have_passages_and_their_recipes_are_in_one_split(task: RecipeDialogue) -> None:
    built = task.build(quiet)
    recipes = {
        name: {example.metadata["evidence"][0].partition("/")[0] for example in examples}
        for name, examples in built.splits.items()
    }
    assert not recipes["train"] & recipes["test"] and all(recipes.values())
    for example in built.splits["test"]:
        system, question = example.messages[0]["content"], example.messages[-1]["content"]
        assert example.metadata["question"] == question and example.response == example.metadata["answer"]
        assert all(passage["text"] in system for passage in example.metadata["passages"])
        assert len(example.metadata["passages"]) <= task.passages
        scores = task.judge(example, example.response)
        assert scores["exact_match"] == scores["token_f1"] == 1.0 and scores["span_f1"] > 0
    assert built.facts["retrieval"]["oracle"]["passage_recall_at_10"] > built.facts["retrieval"]["bm25"]["passage_mrr"]
    assert built == task.build(quiet)


def test_without_retrieval_a_prompt_has_no_passage() -> None:
    built = RecipeDialogue(retrieval="none", dialogues=30, triad=False).build(quiet)
    example = built.splits["train"][0]
    assert example.metadata["passages"] == [] and example.messages[0]["content"] == "You help a cook."
    assert not any("recall" in name for name in RecipeDialogue(triad=False).judge(example, "x"))


def test_prompts_for_augmentation_have_no_response() -> None:
    task = RecipeDialogue(stage="augmentation", dialogues=30)
    (train,) = task.build(quiet).splits.values()
    assert not any(example.has_response for example in train)
    assert {example.metadata["turn"] for example in train} == {example.id for example in train}


FACTS: dict[str, Any] = {
    "recipe": "Pie", "question": "How hot?", "query": "How hot?", "answer": "Heat it to 400 degrees.",
    "spans": ["Preheat the oven.", "400 degrees F"], "passages": [{"id": "p/1", "text": "Preheat to <400> degrees F"}],
    "evidence": ["p/1", "p/3"], "retrieval": "bm25", "ranks": {"bm25": {"documents": [2], "passages": [1, 0]}},
}  # fmt: skip


def test_scores_by_hand(task: RecipeDialogue) -> None:
    scores = task.judge(Example("1", (), metadata=FACTS), "400 degrees")
    # Reference: heat it to 400 degrees; 2 of 5 words. Spans, together: preheat oven 400 degrees
    # f; 2 of 5 words. One of two spans alone is a part of the answer.
    assert scores["token_f1"] == pytest.approx(4 / 7) and scores["rouge_l"] == pytest.approx(4 / 7)
    assert scores["span_f1"] == pytest.approx(4 / 7) and scores["exact_match"] == scores["empty"] == 0.0
    assert scores["document_recall_at_1"] == 0.0 and scores["document_recall_at_3"] == 1.0
    assert scores["passage_recall_at_1"] == 0.5 and scores["document_mrr"] == 0.5 and scores["passage_mrr"] == 1.0
    assert task.summarise([scores, {**scores, "token_f1": 1.0}])["token_f1"] == pytest.approx((4 / 7 + 1) / 2)


def test_an_example_of_another_task_is_refused(task: RecipeDialogue) -> None:
    with pytest.raises(InputError, match="not an example of recipe_dialogue"):
        task.judge(Example("1", (), metadata={"source": "CCO"}), "x")


def test_the_panel_escapes_texts(task: RecipeDialogue) -> None:
    panel = task.panel(Example("1", (), metadata=FACTS), "It is <hot>.")
    assert panel is not None
    assert "&lt;400&gt;" in panel.prompt and "&lt;hot&gt;" in panel.answer and "<hot>" not in panel.answer


def test_questions_to_a_judge_are_the_triad(task: RecipeDialogue) -> None:
    example = Example("1", (), metadata=FACTS)
    questions = task.questions(example, "400 degrees")
    assert sorted(questions) == ["answer_relevance", "context_relevance", "groundedness"]
    assert "400 degrees" not in questions["context_relevance"].messages[0]["content"].replace("<400> degrees", "")
    bare = Example("1", (), metadata={**FACTS, "passages": []})
    assert list(task.questions(bare, "400 degrees")) == ["answer_relevance"]


def test_charts_compare_judges_and_retrieval() -> None:
    def answers(*values: float) -> list[dict[str, Any]]:
        return [
            {"scores": {"groundedness": value, "judge_groundedness": 1 - value}, "metadata": FACTS} for value in values
        ]

    given = {"reference": answers(0.9, 0.8), "shuffled": answers(0.1, 0.85)}
    # Of the four pairs of a right and a wrong answer, three are in order.
    assert [row[-1] for row in separation(given)] == ["0.750", "0.250"]
    without = {"scores": {"context_relevance": 0.3}, "metadata": {**FACTS, "evidence": ["p/9"]}}
    found = [{"scores": {"context_relevance": value}, "metadata": FACTS} for value in (0.2, 0.5, 0.6)]
    # One of three prompts with evidence is below the one without.
    assert separation({"reference": [without, *found], "shuffled": found}) == [
        ["context relevance", "0.433", "0.300", "0.667"]
    ]
    assert [chart.caption.split()[0] for chart in charts(given)] == ["The", "The", "How", "Retrieval"]


def test_keys_without_effect_are_named() -> None:
    assert "path" in RecipeDialogue().unused_keys() and "seed" in RecipeDialogue(data="cookdial").unused_keys()
    with pytest.raises(InputError, match=r"needs task\.path"):
        RecipeDialogue(data="cookdial").build(quiet)
    with pytest.raises(ValueError, match="leave no recipe for training"):
        RecipeDialogue(validation_share=0.5, test_share=0.6)
