"""One interface for all methods of retrieval."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cache.progress import Progress, no_progress
from student.tasks.recipe_dialogue.dialogue import Passage, Recipe
from student.tasks.recipe_dialogue.retrieval.bm25 import Bm25
from student.tasks.recipe_dialogue.retrieval.embeddings import load_encoder
from student.tasks.recipe_dialogue.retrieval.langchain import ParentDocuments

# none: no context. oracle: the recipe of the conversation as it is, an upper bound. The others search all recipes:
# bm25, dense: the best passages by words, or by embeddings. parent: the whole recipes of the nearest passages.
# compressed: the passages of these recipes that are nearest to the query.
Method = Literal["none", "oracle", "bm25", "dense", "parent", "compressed"]
# Passages whose recipes count as found, and the depth of rankings.
DEPTH = 20


@dataclass(frozen=True, slots=True)
class Found:
    """Ranked recipes (ids) and passages, best first."""

    documents: tuple[str, ...]
    passages: tuple[Passage, ...]


class Retriever:
    """Finds passages for queries. documents: recipes that parent and compressed use.

    following: lines of the recipe that come with each passage of bm25, dense and compressed, right behind it. A query
    is near to what was said last, and the answer is often the next step.
    """

    def __init__(self, recipes: Sequence[Recipe], encoder: str, documents: int, following: int) -> None:
        self._recipes = {recipe.id: recipe for recipe in recipes}
        self._passages = [passage for recipe in recipes for passage in recipe.passages]
        self._owner = {passage.id: recipe.id for recipe in recipes for passage in recipe.passages}
        self._encoder, self._documents, self._following = encoder, documents, following
        self._bm25: Bm25 | None = None
        self._parents: ParentDocuments | None = None

    def search(
        self, method: Method, queries: Sequence[str], gold: Sequence[str], progress: Progress = no_progress
    ) -> list[Found]:
        """The ranking of each query. gold: id of the recipe of each query, which only "oracle" reads.

        Raises InputError if the encoder cannot be loaded, or LangChain is missing.
        """
        if method not in ("none", "oracle", "bm25"):
            # All texts at once: an encoder is several times faster on batches than on single texts.
            load_encoder(self._encoder).embed([*(passage.text for passage in self._passages), *queries])
        found = []
        for i, (query, recipe) in enumerate(zip(queries, gold, strict=True)):
            found.append(self._search(method, query, recipe))
            progress(i + 1, len(queries))
        return found

    def _search(self, method: Method, query: str, gold: str) -> Found:
        if method == "none":
            return Found((), ())
        if method == "oracle":
            return Found((gold,), self._recipes[gold].passages)
        if method in ("bm25", "dense"):
            return self._passage_search(self._scores(method, query))
        parents = self._parent_documents()
        documents = tuple(parents.recipes(query))
        if method == "parent":
            passages = [passage for name in documents[: self._documents] for passage in self._recipes[name].passages]
            return Found(documents, tuple(passages))
        lines = parents.compressed(query, self._documents, DEPTH)
        return Found(documents, self._with_following([self._passage(recipe, text) for recipe, text in lines]))

    def _scores(self, method: Method, query: str) -> "np.typing.NDArray[np.floating]":
        if method == "bm25":
            self._bm25 = self._bm25 or Bm25([passage.text for passage in self._passages])
            return np.asarray(self._bm25.scores(query))
        encoder = load_encoder(self._encoder)
        scores: np.typing.NDArray[np.floating] = (
            encoder.embed([passage.text for passage in self._passages]) @ encoder.embed([query])[0]
        )
        return scores

    def _passage_search(self, scores: "np.typing.NDArray[np.floating]") -> Found:
        best = np.argsort(-scores, kind="stable")[:DEPTH]
        passages = tuple(self._passages[i] for i in best)
        documents = tuple(dict.fromkeys(self._owner[passage.id] for passage in passages))
        return Found(documents, self._with_following(passages))

    def _with_following(self, passages: Sequence[Passage]) -> tuple[Passage, ...]:
        """Each passage with the lines behind it, in place of a later appearance."""
        chosen: dict[Passage, None] = {}
        for passage in passages:
            lines = self._recipes[self._owner[passage.id]].passages
            first = lines.index(passage)
            chosen |= dict.fromkeys(lines[first : first + 1 + self._following])
        return tuple(chosen)

    def _parent_documents(self) -> ParentDocuments:
        if self._parents is None:
            self._parents = ParentDocuments(list(self._recipes.values()), load_encoder(self._encoder), DEPTH)
        return self._parents

    def _passage(self, recipe: str, text: str) -> Passage:
        """The passage of a recipe with this text; the first one, if the recipe repeats a line."""
        return next(passage for passage in self._recipes[recipe].passages if passage.text == text)
