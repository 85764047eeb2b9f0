"""Prompts of the task: the question with passages and history as a chat, and the query of the retrieval."""

from collections.abc import Sequence
from typing import Any, Literal

from student.tasks.recipe_dialogue.dialogue import Passage, Recipe, Turn

# question: the question alone. conversation: the utterances before it, too. recipe: these, and the title of the recipe
# that the cook has chosen.
Query = Literal["question", "conversation", "recipe"]
ROLE = "You help a cook."
TASK = "Answer in one or two sentences from these passages:"


def query_of(turn: Turn, recipe: Recipe, form: Query, history: int) -> str:
    """The text that passages are searched for. history: utterances before the question."""
    before = [text for _, text in turn.history[-history:]] if form != "question" and history else []
    title = [recipe.title] if form == "recipe" else []
    return " ".join([*title, *before, turn.question])


def chat(
    turn: Turn, passages: Sequence[Passage], recipes: dict[str, Recipe], history: int
) -> tuple[dict[str, Any], ...]:
    """The chat that a model continues with its answer: passages in the system's turn, then the conversation.

    history: utterances before the question. The chat begins with the cook, so an older answer before that is left out.
    """
    system = f"{ROLE} {TASK}\n{context(passages, recipes)}" if passages else ROLE
    before = list(turn.history[-history:]) if history else []
    while before and before[0][0] != "user":
        before.pop(0)
    turns = [{"role": speaker, "content": text} for speaker, text in before]
    return ({"role": "system", "content": system}, *turns, {"role": "user", "content": turn.question})


def context(passages: Sequence[Passage], recipes: dict[str, Recipe]) -> str:
    """The passages by recipe, the best recipe first, in the order of the recipe, a line each. Each title once."""
    chosen = {passage.id for passage in passages}
    owners = dict.fromkeys(passage.id.rpartition("/")[0] for passage in passages)
    lines = []
    for owner in owners:
        title, *others = recipes[owner].passages
        lines.append(title.text)
        lines += [f"- {passage.text}" for passage in others if passage.id in chosen]
    return "\n".join(lines)
