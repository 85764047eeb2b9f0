"""Settings of a report."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from cache.settings import OneOf, Settings, StoreUri
from student.tasks import TASKS, Task


class ReportSettings(Settings):
    """A job that collects the results of other jobs (`logitbank report`). task: draws the answers, if it can."""

    output: Path
    title: str
    task: Annotated[Task, OneOf(TASKS)] | None = None
    examples: Path | None = None
    store: StoreUri
    heldout_store: StoreUri
    trainings: dict[str, Path] = Field(min_length=1, description="outputs of training jobs by name, in order")
    evaluation: Path
