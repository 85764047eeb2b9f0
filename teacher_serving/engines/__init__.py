"""Engines: the ways to run a teacher. One folder each; `ENGINES` finds them by name.

In: requests of token ids (teacher_serving/teacher.py). Out: sparse rows of the next-token distribution.

    settings.py      what every teacher and engine has in common      description.py   a teacher before it is loaded
    registry.py      the Engine protocol, and ENGINES                 local_model.py   models whose files are at hand
    process.py       environment of a process on a CPU
    vllm/  transformers/  endpoint/                                    the engines

To add an engine, add a folder (or a plugin module) that binds ENGINE to an object with the methods of `Engine`, and a
subclass of EngineSettings with `kind: Literal["its name"]`. Nothing else has to be edited. Engines know nothing of
stores, units or Ray.
"""

from teacher_serving.engines.description import TeacherDescription
from teacher_serving.engines.registry import ENGINES, Engine
from teacher_serving.engines.settings import EngineSettings, TeacherSettings

__all__ = ["ENGINES", "Engine", "EngineSettings", "TeacherDescription", "TeacherSettings"]
