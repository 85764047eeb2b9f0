"""Examples of the task: turns with the passages that were found for them, as prompts with facts for the judge."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cache.errors import InputError
from cache.examples.example import Example
from student.tasks.recipe_dialogue.augmentation import augmentation_chat
from student.tasks.recipe_dialogue.dialogue import Recipe, Turn
from student.tasks.recipe_dialogue.prompts import chat, context, query_of
from student.tasks.recipe_dialogue.retrieval.ranking import ranks_of
from student.tasks.recipe_dialogue.retrieval.retriever import Found, Method
from student.tasks.recipe_dialogue.scoring import means, ranking_scores

# Methods that give whole recipes: the setting `passages` does not cut them.
WHOLE: tuple[Method, ...] = ("parent", "oracle")
FACTS = ("question", "query", "answer", "spans", "passages", "ranks", "retrieval")


@dataclass(frozen=True, slots=True)
class Examples:
    """Makes examples. passages: of a prompt at most. history, query_history: utterances before the question."""

    recipes: dict[str, Recipe]
    method: Method
    history: int
    query_history: int
    passages: int

    def example(self, turn: Turn, found: Found, ranks: Mapping[str, Any]) -> Example:
        """The question as a chat, and the reference answer as the response."""
        passages = found.passages if self.method in WHOLE else found.passages[: self.passages]
        texts = {passage.id: passage.text for passage in self.recipes[turn.recipe].passages}
        return Example(
            turn.id,
            chat(turn, passages, self.recipes, self.history),
            response=turn.answer,
            metadata={
                "recipe": self.recipes[turn.recipe].title,
                "question": turn.question,
                "query": query_of(turn, self.recipes[turn.recipe], "conversation", self.query_history),
                "answer": turn.answer,
                "spans": list(turn.spans or (texts[line] for line in turn.evidence)),
                "passages": [{"id": passage.id, "text": passage.text} for passage in passages],
                "evidence": list(turn.evidence),
                "retrieval": self.method,
                "ranks": dict(ranks),
            },
        )


def augmentation_example(turn: Turn, recipe: Recipe) -> Example:
    """A prompt that asks a teacher to improve a turn. It has no response."""
    chat_of_turn = augmentation_chat(turn, context(recipe.passages, {recipe.id: recipe}))
    return Example(turn.id, chat_of_turn, metadata={"turn": turn.id})


def require_facts(example: Example) -> dict[str, Any]:
    """The metadata of an example. Raises InputError if it is not one of this task."""
    if missing := [name for name in FACTS if name not in example.metadata]:
        raise InputError(
            f"example {example.id}: its metadata has no {missing[0]!r}, so it is not an example of recipe_dialogue; "
            "give the [task] that built the examples"
        )
    return example.metadata


def ranks_in(found: Found, turn: Turn) -> dict[str, list[int]]:
    """The ranks of the turn's recipe and of its evidence in a ranking."""
    return {
        "documents": ranks_of([turn.recipe], found.documents),
        "passages": ranks_of(turn.evidence, [passage.id for passage in found.passages]),
    }


def retrieval_facts(ranks: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """The mean measures of each method over queries."""
    by_method: dict[str, list[dict[str, float]]] = {}
    for query in ranks:
        for method, one in query.items():
            by_method.setdefault(method, []).append(ranking_scores(one))
    return {method: means(scores) for method, scores in by_method.items()}
