"""Settings of a report."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from cache.settings import OneOf, Settings, StoreUri
from student.tasks import TASKS, Task


class ReportSettings(Settings):
    """A job that gathers what other jobs left (`logitbank report`)."""

    output: Path
    title: str
    task: Annotated[Task, OneOf(TASKS)]
    examples: Path | None = None
    store: StoreUri
    heldout_store: StoreUri
    trainings: dict[str, Path] = Field(min_length=1, description="outputs of training jobs by name, in order")
    evaluation: Path
