"""Settings of the jobs that build examples and evaluate models."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cache.settings import ModelPath, OneOf, Settings, StoreUri
from cluster.evaluation.controls import Control
from student.classification.settings import ClassSettings
from student.evaluation.settings import AnswerSettings
from student.tasks import TASKS, Task, unused_judge_keys, unused_task_keys
from teacher_serving.engines.registry import ENGINES
from teacher_serving.engines.settings import EngineSettings, TeacherSettings


class ExamplesSettings(Settings):
    """A job that builds the examples of a task (`logitbank examples`): one JSON Lines file a split."""

    output: Path = Field(description="folder to write")
    task: Annotated[Task, OneOf(TASKS)] = Field(description="the domain whose examples are built")

    def unused_keys(self) -> dict[str, str]:
        return unused_judge_keys(self.task)


class JudgeSettings(Settings):
    """A model that judges the answers of the others: it is asked the questions of the task about each of them."""

    teacher: TeacherSettings = Field(description="the model that judges")
    engine: Annotated[EngineSettings, OneOf(ENGINES, key="kind", default="vllm")] = Field(
        default_factory=lambda: ENGINES["vllm"].settings.model_validate({}), description="how it runs"
    )
    answers: int = Field(100, ge=1, description="answers of each model that are judged, from the first on")
    entries: int = Field(
        64, ge=2, description="most likely tokens that are searched for the choices; a service may allow fewer"
    )

    def unused_keys(self) -> dict[str, str]:
        keys = self.engine.unused_teacher_keys
        return {f"teacher.{name}": reason for name, reason in keys.items()}


class EvaluateSettings(Settings):
    """A job that evaluates models on held-out examples (`logitbank evaluate`).

    store: examples with a teacher's targets. examples: a file in its place, without a teacher.
    task: language models also answer prompts, and the task judges the answers. classes: the models are classifiers with
    these classes, or language models whose answer begins with one of them; a task then judges the most probable class.
    Without either, language models are compared with the examples only.
    """

    output: Path = Field(description="folder to write")
    store: StoreUri | None = Field(None, description="store of held-out examples")
    examples: Path | None = Field(None, description="JSON Lines file of held-out examples, in place of a store")
    origins: tuple[Literal["scored", "generated"], ...] = Field(
        ("scored",), min_length=1, description="of a store: given responses, responses by the teacher, or both"
    )
    snapshot: int | None = Field(None, ge=1, description="pinned snapshot; the newest if not given")
    task: Annotated[Task, OneOf(TASKS)] | None = None
    classes: ClassSettings | None = None
    models: dict[str, ModelPath] = Field(
        min_length=1, description="model folder or hub name, by the name in the report"
    )
    trust_remote_code: bool = Field(False, description="run Python code that the models' folders contain")
    generation: AnswerSettings = Field(AnswerSettings(), description="how language models answer prompts; needs a task")
    controls: tuple[Control, ...] = Field(
        (), description="answers beside those of the models: the reference answers, and the same answers shuffled"
    )
    judge: JudgeSettings | None = Field(None, description="a model that judges the answers; none if not given")

    def unused_keys(self) -> dict[str, str]:
        unused = unused_task_keys(self.task)
        if self.store is None or self.classes is not None:
            unused["origins"] = "it chooses among the responses of a store to language models"
        if self.store is None:
            unused["snapshot"] = "only a store has snapshots, and 'examples' is a file"
        if self.classes is not None:
            unused["trust_remote_code"] = "no code of a classifier's folder is run"
            unused["classes.hard_labels"] = "an evaluation learns nothing"
            reason = "with [classes] the most probable class is the answer"
            unused |= {f"generation.{name}": reason for name in AnswerSettings.model_fields}
            unused |= dict.fromkeys(("controls", "judge"), "they are about answers that are written")
        elif self.task is None:
            reason = "answers are generated only where a [task] judges them"
            unused |= {f"generation.{name}": reason for name in AnswerSettings.model_fields}
            unused |= dict.fromkeys(("controls", "judge"), reason)
        return unused

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.store is None) == (self.examples is None):
            raise ValueError("give exactly one of 'store' and 'examples'")
        if unknown := sorted(set(self.generation.with_shots) - set(self.models)):
            raise ValueError(f"generation.with_shots: {unknown[0]!r} is none of the models ({', '.join(self.models)})")
        if taken := set(self.models) & set(self.controls):
            raise ValueError(f"models.{min(taken)}: the name belongs to one of 'controls'; give the model another one")
        return self
