"""The interface of a task."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from cache.examples.example import Example
from cache.progress import Progress
from cache.settings import Settings

# What an evaluation keeps of one answer: its id, text, scores and metadata.
Answer = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Built:
    """What a task builds. splits: examples by the name of their file. facts: statistics of the data, JSON values.

    The facts also count what was left out, by reason. `logitbank examples` writes them into examples.json.
    may_be_empty: whether it is no error that no training example is left.
    """

    splits: dict[str, list[Example]]
    facts: dict[str, Any] = field(default_factory=dict)
    may_be_empty: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """A prompt and an answer to it for the report, as HTML (student.tasks.html escapes). caption: plain text.

    prompt is the same for the answers of all models. An empty answer is shown as one that is not valid.
    """

    prompt: str
    answer: str
    caption: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture (SVG) or a table (HTML) about all answers, with a caption in plain text."""

    caption: str
    html: str


@dataclass(frozen=True, slots=True)
class Question:
    """A question to a judging model about one answer.

    messages: the chat that it continues. choices: the value of each word that it may begin its reply with, such as
    {"Yes": 1, "No": 0} or the grades {"1": 1, "2": 2, "3": 3}. The score of the answer is the mean of the values, by
    the judge's probabilities of the words.
    """

    messages: tuple[dict[str, Any], ...]
    choices: Mapping[str, float]


class Task(Settings):
    """A domain. Its fields are the keys of the [task] table; it has no other state."""

    # Keys that only `build` reads: a job that judges or shows answers refuses them.
    build_keys: ClassVar[tuple[str, ...]] = ()

    # Keys that only an evaluation or a report reads: a job that builds examples refuses them.
    judge_keys: ClassVar[tuple[str, ...]] = ()

    # Metrics that are also reported after each round of feedback; all if empty.
    round_metrics: ClassVar[tuple[str, ...]] = ()

    # Metrics of `summarise` that need nothing but labels, and are also reported for classifiers.
    label_metrics: ClassVar[tuple[str, ...]] = ()

    # Whether classes of labels go from the worst to the best. If not, classifiers have no QWK.
    labels_have_order: ClassVar[bool] = True

    name: str

    @abstractmethod
    def build(self, progress: Progress) -> Built:
        """Build the examples of each split, such as "train" and "heldout"."""

    @abstractmethod
    def judge(self, example: Example, text: str) -> dict[str, float]:
        """Score one answer. The names of the scores are the same for every answer.

        A score may also be a count or the index of a class, from which `summarise` computes metrics of all answers.
        Raises InputError if the example belongs to another task.
        """

    @abstractmethod
    def summarise(self, scores: list[dict[str, float]]) -> dict[str, float]:
        """Compute the metrics of the domain from the scores of all answers."""

    def inputs(self) -> Sequence[Path] | None:
        """The files and folders that `build` reads. None: every path of the settings.

        A task that reads only parts of a folder names these parts: a change beside them is then no change.
        """
        return None

    def feedback(self, example: Example, text: str, number: int) -> list[dict[str, str]] | None:
        """The turns that tell a model what was wrong with an answer, so that it answers again.

        number: of the further round, from 1. None: the answer is right, or the task gives no feedback.
        """
        return None

    def scores_after(self, scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """The scores of an example that count after rounds of feedback. scores: of its answers, one a round."""
        return dict(scores[-1])

    def questions(self, example: Example, text: str) -> dict[str, Question]:
        """Questions to a judging model about one answer, by the name of the score; none by default.

        An evaluation with a [judge] adds the scores as judge_NAME. `summarise` then receives them, too.
        """
        return {}

    def panel(self, example: Example, text: str) -> Panel | None:
        """Show a prompt and an answer in the report. None: there is nothing to show."""
        return None

    def charts(self, answers: Mapping[str, Sequence[Answer]]) -> list[Chart]:
        """Charts of the report about all answers. answers: those of each model, in the same order for all models."""
        return []

    def comparisons(self, metrics: Mapping[str, Mapping[str, float]]) -> list[Chart]:
        """Charts of the report that compare models by their metrics, such as ratios of size and time.

        metrics: of each column of the report's first table; of a group of seeds, their means.
        """
        return []


def unused_task_keys(task: Task | None) -> dict[str, str]:
    """Keys of [task] that have no effect in a job that builds no examples, each with the reason."""
    names = () if task is None else task.build_keys
    return {f"task.{name}": "only a job that builds examples reads it" for name in names}


def unused_judge_keys(task: Task) -> dict[str, str]:
    """Keys of [task] that have no effect in a job that builds examples, each with the reason."""
    return {f"task.{name}": "only a job that judges answers reads it" for name in task.judge_keys}


@dataclass(frozen=True, slots=True)
class TaskKind:
    """A task as the registry lists it. settings: the class that reads the [task] table."""

    name: str
    settings: type[Task]
