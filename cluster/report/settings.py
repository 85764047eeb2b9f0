"""Settings of a report."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from cache.settings import OneOf, Settings, StoreUri
from student.tasks import TASKS, Task, unused_task_keys


class ReportSettings(Settings):
    """A job that collects the results of other jobs (`logitbank report`).

    groups: models of the evaluation that differ in their seed alone. The tables then show the mean of each group with
    its lowest and highest value; models without a group are shown as they are.
    """

    output: Path = Field(description="folder to write")
    title: str = Field(description="of the page")
    task: Annotated[Task, OneOf(TASKS)] | None = Field(None, description="shows the answers")
    examples: Path | None = Field(None, description="output of the examples job; optional")
    store: StoreUri = Field(description="the store of the students")
    heldout_store: StoreUri = Field(description="the store of the evaluation")
    captures: dict[str, StoreUri] = Field({}, description="further stores by name, for speeds and times")
    trainings: dict[str, Path] = Field(min_length=1, description="outputs of training jobs by name, in order")
    evaluation: Path = Field(description="output of the evaluation job whose answers are shown")
    evaluations: dict[str, Path] = Field({}, description="further evaluations by name, a table each")
    groups: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = Field(
        {}, description="models by the name of their group"
    )

    def unused_keys(self) -> dict[str, str]:
        return unused_task_keys(self.task)
