"""Recipes and conversations about them: what the readers return. Knows nothing of files, prompts or retrieval."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

Speaker = Literal["user", "assistant"]
Utterance = tuple[Speaker, str]


@dataclass(frozen=True, slots=True)
class Passage:
    """A line of a recipe: its title, an ingredient or a step. id: unique among all recipes, such as "000/inst-3"."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe is a parent document. passages: its lines, in order; the first one is the title."""

    id: str
    title: str
    passages: tuple[Passage, ...]

    @property
    def text(self) -> str:
        """The whole document, a passage a line."""
        return "\n".join(passage.text for passage in self.passages)


@dataclass(frozen=True, slots=True)
class Turn:
    """A question of the cook and the reference answer.

    id: unique. recipe: id of the recipe. history: the utterances before the question, oldest first.
    evidence: ids of the passages that the answer is taken from. spans: texts copied from the recipe that answer the
    question; empty if the data set marks none. split: as the data set gives it, "" if it gives none.
    """

    id: str
    recipe: str
    history: tuple[Utterance, ...]
    question: str
    answer: str
    evidence: tuple[str, ...] = ()
    spans: tuple[str, ...] = ()
    split: str = ""


@dataclass(slots=True)
class Conversations:
    """A data set. recipes: by id. left_out: how many turns or conversations are not used, by reason."""

    recipes: dict[str, Recipe]
    turns: list[Turn]
    left_out: Counter[str] = field(default_factory=Counter)


def one_line(text: str) -> str:
    """The text without line breaks and repeated spaces."""
    return " ".join(text.split())
