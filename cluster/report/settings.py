"""Settings of a report."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from cache.settings import OneOf, Settings, StoreUri
from student.tasks import TASKS, Task, unused_task_keys


class ReportSettings(Settings):
    """A job that collects the results of other jobs (`logitbank report`). task: draws the answers, if it can."""

    output: Path = Field(description="folder to write")
    title: str = Field(description="of the page")
    task: Annotated[Task, OneOf(TASKS)] | None = Field(None, description="draws the answers")
    examples: Path | None = Field(None, description="output of the examples job; optional")
    store: StoreUri = Field(description="the store of the students")
    heldout_store: StoreUri = Field(description="the store of the evaluation")
    trainings: dict[str, Path] = Field(min_length=1, description="outputs of training jobs by name, in order")
    evaluation: Path = Field(description="output of the evaluation job")

    def unused_keys(self) -> dict[str, str]:
        return unused_task_keys(self.task)
