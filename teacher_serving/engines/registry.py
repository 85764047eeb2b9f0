"""The engines that can run a teacher, by name. An engine is a folder (or file) here, or a plugin."""

from collections.abc import Mapping
from typing import Protocol

from cache.registry import Registry
from teacher_serving.asking.settings import GenerationSettings
from teacher_serving.engines.description import TeacherDescription
from teacher_serving.engines.settings import EngineSettings, TeacherSettings
from teacher_serving.reduction.settings import TargetSettings
from teacher_serving.teacher import Teacher


class Engine(Protocol):
    """One way to run a teacher. A module binds its engine to ENGINE. Heavy libraries are imported in the methods.

    name: the value of `engine.kind` in job files. settings: class of the table [engine], a subclass of EngineSettings
    whose `kind` is a Literal of the name.
    """

    @property
    def name(self) -> str: ...
    @property
    def settings(self) -> type[EngineSettings]: ...

    def describe(
        self,
        teacher: TeacherSettings,
        engine: EngineSettings,
        targets: TargetSettings,
        generation: GenerationSettings | None,
        score: bool,
    ) -> TeacherDescription:
        """Describe a capture with these settings. Loads no weights and sends no request.

        score: whether the responses that examples contain are scored. Raises InputError if this engine cannot do it.
        """
        ...

    def start(
        self, description: TeacherDescription, teacher: TeacherSettings, engine: EngineSettings, on_gpu: bool
    ) -> Teacher:
        """Load the model, or connect to the service. Raises LogitbankError if that fails."""
        ...

    def environment(self, engine: EngineSettings, on_gpu: bool) -> Mapping[str, str]:
        """Environment variables that the engine's process must be started with."""
        ...


ENGINES: Registry[Engine] = Registry("engine kind", "teacher_serving.engines", "ENGINE")
