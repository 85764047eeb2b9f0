"""What a domain offers: examples to learn from, and a verdict on an answer."""

from dataclasses import dataclass
from typing import Protocol

from cache.examples.example import Example
from cache.progress import Progress


@dataclass(frozen=True, slots=True)
class Pictures:
    """A prompt and its answer as a person sees them: SVG drawings (empty where there is none) and a caption."""

    before: str
    after: str
    caption: str


class Task(Protocol):
    """A domain. Instances hold its settings and no state."""

    def build(self, progress: Progress) -> dict[str, list[Example]]:
        """Examples by split ("train", "heldout")."""
        ...

    def judge(self, example: Example, text: str) -> dict[str, float]:
        """Scores of one answer; every answer gets the same names."""
        ...

    def summarise(self, scores: list[dict[str, float]]) -> dict[str, float]:
        """The metrics that the domain's experts expect, from the scores of all answers."""
        ...

    def picture(self, example: Example, text: str) -> Pictures | None:
        """Drawings for the report, or None where there is nothing to see."""
        ...
