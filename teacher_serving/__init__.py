"""Teachers: an open-weight model, or a service, becomes records of a store.

Rooms, from the lowest to the highest; an import goes only downward:

    reduction/   full logits to sparse rows, and the random draws of sampled targets
    teacher.py   the Teacher protocol: what is asked, and what is answered
    asking/      examples to requests: prompts, templates, rationales, parsing of answers
    engines/     vLLM, Transformers and services; one folder each, found by name
    capture/     one unit of examples: ask the teacher, write and commit a part

Never imports student or Ray. The names below are the public face; each is imported at first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from teacher_serving.asking.settings import GenerationSettings
    from teacher_serving.capture.start import describe, start_teacher
    from teacher_serving.engines.registry import ENGINES, Engine
    from teacher_serving.engines.settings import EngineSettings, TeacherSettings
    from teacher_serving.reduction.settings import TargetSettings
    from teacher_serving.teacher import Generated, Request, Scored, Teacher

_HOMES = {
    "ENGINES": "engines.registry",
    "Engine": "engines.registry",
    "EngineSettings": "engines.settings",
    "Generated": "teacher",
    "GenerationSettings": "asking.settings",
    "Request": "teacher",
    "Scored": "teacher",
    "TargetSettings": "reduction.settings",
    "Teacher": "teacher",
    "TeacherSettings": "engines.settings",
    "describe": "capture.start",
    "start_teacher": "capture.start",
}

__all__ = [
    "ENGINES",
    "Engine",
    "EngineSettings",
    "Generated",
    "GenerationSettings",
    "Request",
    "Scored",
    "TargetSettings",
    "Teacher",
    "TeacherSettings",
    "describe",
    "start_teacher",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
