"""Settings of the jobs that build examples and evaluate models."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from cache.settings import ModelPath, OneOf, Settings, StoreUri
from student.classification.settings import ClassSettings
from student.evaluation.settings import AnswerSettings
from student.tasks import TASKS, Task, unused_task_keys


class ExamplesSettings(Settings):
    """A job that builds the examples of a task (`logitbank examples`): one JSON Lines file a split."""

    output: Path = Field(description="folder to write")
    task: Annotated[Task, OneOf(TASKS)] = Field(description="the domain whose examples are built")


class EvaluateSettings(Settings):
    """A job that evaluates models on a store of held-out examples (`logitbank evaluate`).

    task: language models also answer prompts, and the task judges the answers. classes: the models are classifiers with
    these classes. Without either, language models are compared with the stored targets only.
    """

    output: Path = Field(description="folder to write")
    store: StoreUri = Field(description="store of held-out examples")
    snapshot: int | None = Field(None, ge=1, description="pinned snapshot; the newest if not given")
    task: Annotated[Task, OneOf(TASKS)] | None = None
    classes: ClassSettings | None = None
    models: dict[str, ModelPath] = Field(
        min_length=1, description="model folder or hub name, by the name in the report"
    )
    trust_remote_code: bool = Field(False, description="run Python code that the models' folders contain")
    generation: AnswerSettings = Field(AnswerSettings(), description="how language models answer prompts; needs a task")

    def unused_keys(self) -> dict[str, str]:
        unused = unused_task_keys(self.task)
        if self.classes is not None:
            unused["trust_remote_code"] = "no code of a classifier's folder is run"
        if self.task is None:
            reason = "answers are generated only where a [task] judges them"
            unused |= {f"generation.{name}": reason for name in AnswerSettings.model_fields}
        return unused

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.task is not None and self.classes is not None:
            raise ValueError(
                "'task' judges the answers of language models, and 'classes' belongs to classifiers; give one of them"
            )
        return self
