"""The task: questions of a cook about a recipe, answered from retrieved passages."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from cache.errors import InputError
from cache.examples.example import Example
from cache.progress import Progress
from cache.settings import ModelPath, StoreUri
from cache.store.logit_store import LogitStore
from student.tasks.recipe_dialogue import examples as make
from student.tasks.recipe_dialogue import page
from student.tasks.recipe_dialogue.augmentation import augmented_turns
from student.tasks.recipe_dialogue.dialogue import Conversations, Turn
from student.tasks.recipe_dialogue.prompts import Query, query_of
from student.tasks.recipe_dialogue.readers.cookdial import read_cookdial
from student.tasks.recipe_dialogue.readers.synthetic import synthetic_conversations
from student.tasks.recipe_dialogue.readers.wizard_of_tasks import read_wizard_of_tasks
from student.tasks.recipe_dialogue.retrieval.retriever import Found, Method, Retriever
from student.tasks.recipe_dialogue.scoring import answer_scores, means, ranking_scores
from student.tasks.recipe_dialogue.splits import SPLITS, split_turns
from student.tasks.recipe_dialogue.triad import embedding_triad, judge_questions
from student.tasks.task import Answer, Built, Chart, Panel, Question, Task

Split = Literal["train", "validation", "test"]


class RecipeDialogue(Task):
    """Answer questions about recipes (`[task] name = "recipe_dialogue"`).

    stage: "answers" builds the examples of students. "augmentation" builds prompts that ask a teacher to improve each
    training turn, and "augmented" the examples of what it wrote, out of the store `augmented`: better questions with
    their answers, and follow-up questions, which the teacher answers at capture.
    """

    build_keys: ClassVar[tuple[str, ...]] = (
        "data", "path", "recipes", "stage", "augmented", "retrieval", "compare", "query", "documents", "following",
        "passages", "history", "query_history", "limits", "validation_share", "test_share", "dialogues", "seed",
    )  # fmt: skip

    name: Literal["recipe_dialogue"] = Field("recipe_dialogue", description="selects this task")
    data: Literal["synthetic", "cookdial", "wizard_of_tasks"] = Field(
        "synthetic", description="data set: from a grammar, or in the public form of CookDial or Wizard of Tasks"
    )
    path: Path | None = Field(
        None, description="folder of CookDial; JSON file of Wizard of Tasks, or folder of its extractive form"
    )
    recipes: Path | None = Field(None, description="wizard_of_tasks: JSON file with the recipes by address; optional")
    stage: Literal["answers", "augmentation", "augmented"] = Field("answers", description="what is built")
    augmented: StoreUri | None = Field(None, description="store of what the teacher wrote")
    retrieval: Method = Field("compressed", description="how the passages of a prompt are found")
    compare: tuple[Method, ...] = Field(
        (), description="further methods whose rankings are measured for held-out turns"
    )
    encoder: ModelPath = Field(
        "runs/encoders/all-MiniLM-L6-v2", description="sentence encoder, for retrieval and triad"
    )
    query: Query = Field("recipe", description="what is searched for")
    documents: int = Field(1, ge=1, description="recipes that parent and compressed retrieval use")
    following: int = Field(1, ge=0, description="lines behind each passage that was found, that come with it")
    passages: int = Field(8, ge=1, description="passages of a prompt at most; parent and oracle give whole recipes")
    history: int = Field(2, ge=0, description="utterances before the question, in prompts")
    query_history: int = Field(1, ge=0, description="utterances before the question, in queries")
    limits: dict[Split, Annotated[int, Field(ge=1)]] = Field(
        {}, description="turns of a split at most, such as { test = 200 }"
    )
    validation_share: float = Field(0.1, gt=0, lt=1, description="share of the recipes, if the data set has no splits")
    test_share: float = Field(0.15, gt=0, lt=1, description="share of the recipes, if the data set has no splits")
    dialogues: int = Field(120, ge=10, description="synthetic: number of recipes, with one dialogue each")
    seed: int = Field(0, ge=0, description="synthetic: seed of the grammar")
    triad: bool = Field(True, description="score answers with the triad by embeddings")

    def unused_keys(self) -> dict[str, str]:
        unused = {}
        if self.data == "synthetic":
            unused = dict.fromkeys(("path", "recipes"), 'data = "synthetic" reads no file')
        else:
            unused = dict.fromkeys(("dialogues", "seed"), f'data = "{self.data}" is read from files')
        if self.data == "cookdial":
            unused["recipes"] = "CookDial contains its recipes"
        if self.stage != "augmented":
            unused["augmented"] = 'only stage = "augmented" reads it'
        if self.stage == "augmented":
            unused["compare"] = "rankings are measured for held-out turns"
        if self.stage == "augmentation":
            keys = (
                "retrieval",
                "compare",
                "query",
                "documents",
                "following",
                "passages",
                "history",
                "query_history",
            )
            unused |= dict.fromkeys(keys, 'stage = "augmentation" shows the teacher the whole recipe')
        return unused

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.validation_share + self.test_share >= 1:
            raise ValueError("validation_share and test_share leave no recipe for training; make them smaller")
        return self

    def build(self, progress: Progress) -> Built:
        """Build the examples of train, validation and test; for the stages of the augmentation, those of train alone.

        Turns whose answer is taken from no passage, such as thanks, are left out. Raises InputError for bad data, and
        if the retrieval needs an encoder or LangChain that is missing.
        """
        data = self._read()
        grounded = [turn for turn in data.turns if turn.evidence]
        if count := len(data.turns) - len(grounded):
            data.left_out["answer is taken from no passage of the recipe"] += count
        limits = {str(name): limit for name, limit in self.limits.items()}
        splits = split_turns(grounded, self.validation_share, self.test_share, limits, data.left_out)
        if empty := [name for name in SPLITS if not splits[name]]:
            raise InputError(f"task.data = {self.data!r}: split {empty[0]!r} has no turn; give more data")
        facts: dict[str, Any] = {
            "recipes": len(data.recipes),
            "passages": sum(len(recipe.passages) for recipe in data.recipes.values()),
            "recipes_by_split": {name: len({turn.recipe for turn in turns}) for name, turns in splits.items()},
            "left_out": dict(data.left_out),
        }
        if self.stage == "augmentation":
            examples = [make.augmentation_example(turn, data.recipes[turn.recipe]) for turn in splits["train"]]
            return Built({"train": examples}, facts)
        if self.stage == "augmented":
            return self._build_augmented(data, splits["train"], facts, progress)
        return self._build_answers(data, splits, facts, progress)

    def judge(self, example: Example, text: str) -> dict[str, float]:
        """Agreement with the reference and the spans, the triad by embeddings, and how good the retrieval was."""
        facts = make.require_facts(example)
        passages = [passage["text"] for passage in facts["passages"]]
        scores = answer_scores(text, facts["answer"], facts["spans"])
        if self.triad:
            scores |= embedding_triad(self.encoder, facts["query"], passages, text)
        ranks = facts["ranks"].get(facts["retrieval"])
        return scores | (ranking_scores(ranks) if ranks else {})

    def summarise(self, scores: list[dict[str, float]]) -> dict[str, float]:
        """The means of all scores."""
        return means(scores)

    def questions(self, example: Example, text: str) -> dict[str, Question]:
        """The triad as questions to a judging model."""
        facts = make.require_facts(example)
        return judge_questions(facts["query"], [passage["text"] for passage in facts["passages"]], text)

    def panel(self, example: Example, text: str) -> Panel | None:
        """The question with its passages; the answer with the passages that support it."""
        return page.answer_panel(example.metadata, text, self.encoder if self.triad else None)

    def charts(self, answers: Mapping[str, Sequence[Answer]]) -> list[Chart]:
        """The triad of each model, how well judges tell right from wrong answers, and the retrieval."""
        return page.charts(answers)

    def _read(self) -> Conversations:
        if self.data == "synthetic":
            return synthetic_conversations(self.dialogues, self.seed)
        if self.path is None:
            raise InputError(f"task.data = {self.data!r}: needs task.path, where the data set is")
        return read_cookdial(self.path) if self.data == "cookdial" else read_wizard_of_tasks(self.path, self.recipes)

    def _build_answers(
        self, data: Conversations, splits: dict[str, list[Turn]], facts: dict[str, Any], progress: Progress
    ) -> Built:
        retriever = Retriever(list(data.recipes.values()), self.encoder, self.documents, self.following)
        heldout = [turn for name in ("validation", "test") for turn in splits[name]]
        found = self._search(retriever, self.retrieval, [*splits["train"], *heldout], data, progress)
        ranks: dict[str, dict[str, Any]] = {turn.id: {} for turn in [*splits["train"], *heldout]}
        for method in dict.fromkeys((self.retrieval, *self.compare)):
            if method == "none":
                continue
            other = found if method == self.retrieval else self._search(retriever, method, heldout, data, progress)
            for turn in heldout:
                ranks[turn.id][method] = make.ranks_in(other[turn.id], turn)
        builder = self._examples(data)
        built = {
            name: [builder.example(turn, found[turn.id], ranks[turn.id]) for turn in turns]
            for name, turns in splits.items()
        }
        facts["retrieval"] = make.retrieval_facts(ranks[turn.id] for turn in heldout)
        return Built(built, facts)

    def _search(
        self, retriever: Retriever, method: Method, turns: list[Turn], data: Conversations, progress: Progress
    ) -> dict[str, Found]:
        queries = [query_of(turn, data.recipes[turn.recipe], self.query, self.query_history) for turn in turns]
        found = retriever.search(method, queries, [turn.recipe for turn in turns], progress)
        return {turn.id: one for turn, one in zip(turns, found, strict=True)}

    def _build_augmented(
        self, data: Conversations, train: list[Turn], facts: dict[str, Any], progress: Progress
    ) -> Built:
        if self.augmented is None:
            raise InputError('task.stage = "augmented" needs task.augmented, the store of what the teacher wrote')
        texts = (
            (str(written.metadata.get("turn")), written.rationale + written.response)
            for written in LogitStore.open(str(self.augmented)).texts(slice(None))
        )
        turns, facts["augmentation"] = augmented_turns(texts, {turn.id: turn for turn in train})
        retriever = Retriever(list(data.recipes.values()), self.encoder, self.documents, self.following)
        found = self._search(retriever, self.retrieval, turns, data, progress)
        examples = [self._examples(data).example(turn, found[turn.id], {}) for turn in turns]
        # A small teacher may have written nothing in the form that was asked for. Then there is no augmentation.
        return Built({"train": examples}, facts, may_be_empty=True)

    def _examples(self, data: Conversations) -> "make.Examples":
        return make.Examples(data.recipes, self.retrieval, self.history, self.query_history, self.passages)
