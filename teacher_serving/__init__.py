"""Teachers: an open-weight model, or a service, becomes records of a store.

Rooms, from the lowest to the highest; an import goes only downward:

    reduction/   full logits to sparse rows, and the random draws of sampled targets
    teacher.py   the Teacher protocol: what is asked, and what is answered
    asking/      examples to requests: prompts, templates, rationales, parsing of answers
    engines/     vLLM, Transformers and services; one folder each, found by name
    capture/     one unit of examples: ask the teacher, write and commit a part

Never imports student or Ray. The names below are the public face; each is imported at first use.
"""

from typing import TYPE_CHECKING

from cache.lazy_names import lazy_names

if TYPE_CHECKING:
    from teacher_serving.asking.settings import GenerationSettings
    from teacher_serving.capture.start import describe, start_teacher
    from teacher_serving.engines.registry import ENGINES, Engine
    from teacher_serving.engines.settings import EngineSettings, TeacherSettings
    from teacher_serving.reduction.settings import TargetSettings
    from teacher_serving.teacher import Generated, Request, Scored, Teacher

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

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "teacher_serving.asking.settings": ("GenerationSettings",),
            "teacher_serving.capture.start": ("describe", "start_teacher"),
            "teacher_serving.engines.registry": ("ENGINES", "Engine"),
            "teacher_serving.engines.settings": ("EngineSettings", "TeacherSettings"),
            "teacher_serving.reduction.settings": ("TargetSettings",),
            "teacher_serving.teacher": ("Generated", "Request", "Scored", "Teacher"),
        },
    )
