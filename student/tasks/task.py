"""The interface of a task."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from cache.examples.example import Example
from cache.progress import Progress
from cache.settings import Settings


@dataclass(frozen=True, slots=True)
class Pictures:
    """A prompt and its answer as SVG drawings (empty if there is none), with a caption."""

    before: str
    after: str
    caption: str


class Task(Settings):
    """A domain. Its fields are the keys of the [task] table; it has no other state."""

    # Keys that only `build` reads: a job that judges or draws answers refuses them.
    build_keys: ClassVar[tuple[str, ...]] = ()

    name: str

    @abstractmethod
    def build(self, progress: Progress) -> dict[str, list[Example]]:
        """Build the examples of each split ("train", "heldout")."""

    @abstractmethod
    def judge(self, example: Example, text: str) -> dict[str, float]:
        """Score one answer. The names of the scores are the same for every answer.

        Raises InputError if the example belongs to another task.
        """

    @abstractmethod
    def summarise(self, scores: list[dict[str, float]]) -> dict[str, float]:
        """Compute the metrics of the domain from the scores of all answers."""

    def picture(self, example: Example, text: str) -> Pictures | None:
        """Draw a prompt and an answer for the report. None: there is nothing to draw."""
        return None


def unused_task_keys(task: Task | None) -> dict[str, str]:
    """Keys of [task] that have no effect in a job that builds no examples, each with the reason."""
    names = () if task is None else task.build_keys
    return {f"task.{name}": "only a job that builds examples reads it" for name in names}


@dataclass(frozen=True, slots=True)
class TaskKind:
    """A task as the registry lists it. settings: the class that reads the [task] table."""

    name: str
    settings: type[Task]
