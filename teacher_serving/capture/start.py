"""Describe and start the teacher that a job's settings name, through the registry of engines."""

from teacher_serving.asking.settings import GenerationSettings
from teacher_serving.engines.description import TeacherDescription
from teacher_serving.engines.registry import ENGINES
from teacher_serving.engines.settings import EngineSettings, TeacherSettings
from teacher_serving.reduction.settings import TargetSettings
from teacher_serving.teacher import Teacher


def describe(
    teacher: TeacherSettings,
    engine: EngineSettings,
    targets: TargetSettings,
    generation: GenerationSettings | None,
    score: bool = True,
) -> TeacherDescription:
    """Describe what a capture with these settings will contain. Raises InputError if the teacher cannot provide it.

    score: whether the responses that examples contain are scored.
    """
    targets = targets.with_mode(engine.default_mode)
    return ENGINES[engine.kind].describe(teacher, engine, targets, generation, score)


def start_teacher(
    description: TeacherDescription, teacher: TeacherSettings, engine: EngineSettings, on_gpu: bool
) -> Teacher:
    """Load the model into the engine that the settings name, or connect to the service that has it."""
    return ENGINES[engine.kind].start(description, teacher, engine, on_gpu)
