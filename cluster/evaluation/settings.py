"""Settings of the jobs that build examples and evaluate models."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from cache.settings import Settings, StoreUri
from student.classes.class_targets import ClassSettings
from student.evaluation.settings import GenerationEvaluation
from student.tasks.drug_editing.task import DrugEditing


class ExamplesSettings(Settings):
    """A job that builds the examples of a task (`logitbank examples`): one JSON Lines file a split."""

    output: Path
    task: DrugEditing


class EvaluateSettings(Settings):
    """A job that holds models against a store of held-out examples (`logitbank evaluate`).

    task: also answers prompts, and judges them. classes: the models are classifiers of these. Without either, language
    models are held against the targets alone.
    """

    output: Path
    store: StoreUri
    snapshot: int | None = Field(None, ge=1)
    task: DrugEditing | None = None
    classes: ClassSettings | None = None
    models: dict[str, str] = Field(min_length=1, description="model folder or hub name by the name to report it under")
    generation: GenerationEvaluation = GenerationEvaluation()

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.task is not None and self.classes is not None:
            raise ValueError("'task' judges answers of language models, 'classes' are those of classifiers; give one")
        return self
