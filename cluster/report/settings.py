"""Settings of a report."""

from pathlib import Path

from pydantic import Field

from cache.settings import Settings, StoreUri
from student.tasks.drug_editing.task import DrugEditing


class ReportSettings(Settings):
    """A job that gathers what other jobs left (`logitbank report`)."""

    output: Path
    title: str
    task: DrugEditing
    examples: Path | None = None
    store: StoreUri
    heldout_store: StoreUri
    trainings: dict[str, Path] = Field(min_length=1, description="outputs of training jobs by name, in order")
    evaluation: Path
