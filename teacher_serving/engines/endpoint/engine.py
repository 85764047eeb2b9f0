"""The endpoint engine as the registry sees it: its settings, and how to describe and start a teacher on it."""

from collections.abc import Mapping

from teacher_serving.asking.settings import GenerationSettings
from teacher_serving.engines.description import TeacherDescription
from teacher_serving.engines.endpoint.settings import EndpointEngineSettings
from teacher_serving.engines.settings import EngineSettings, TeacherSettings
from teacher_serving.reduction.settings import TargetSettings
from teacher_serving.teacher import Teacher


class EndpointEngine:
    """Teachers behind the API of a service."""

    name = "endpoint"
    settings = EndpointEngineSettings

    def describe(
        self,
        teacher: TeacherSettings,
        engine: EngineSettings,
        targets: TargetSettings,
        generation: GenerationSettings | None,
        score: bool,
    ) -> TeacherDescription:
        """See Engine.describe."""
        from teacher_serving.engines.endpoint.description import describe_endpoint

        assert isinstance(engine, EndpointEngineSettings)
        return describe_endpoint(teacher, engine.endpoint, targets, generation, score)

    def start(
        self, description: TeacherDescription, teacher: TeacherSettings, engine: EngineSettings, on_gpu: bool
    ) -> Teacher:
        """See Engine.start. Sends a short trial request."""
        from teacher_serving.engines.endpoint.teacher import EndpointTeacher

        assert isinstance(engine, EndpointEngineSettings)
        return EndpointTeacher(teacher, engine.endpoint, description.spec, description.tokenizer)

    def environment(self, engine: EngineSettings, on_gpu: bool) -> Mapping[str, str]:
        """See Engine.environment. The client of a service needs none."""
        return {}
