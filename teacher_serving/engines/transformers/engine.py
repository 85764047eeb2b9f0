"""The Transformers engine as the registry sees it: its settings, and how to describe and start a teacher on it."""

from collections.abc import Mapping

from cache.errors import InputError
from teacher_serving.asking.settings import GenerationSettings
from teacher_serving.engines.description import TeacherDescription
from teacher_serving.engines.process import cpu_environment
from teacher_serving.engines.settings import EngineSettings, TeacherSettings
from teacher_serving.engines.transformers.settings import TransformersSettings
from teacher_serving.reduction.settings import TargetSettings
from teacher_serving.teacher import Teacher


class TransformersEngine:
    """Causal and encoder-decoder models on Transformers."""

    name = "transformers"
    settings = TransformersSettings

    def describe(
        self,
        teacher: TeacherSettings,
        engine: EngineSettings,
        targets: TargetSettings,
        generation: GenerationSettings | None,
        score: bool,
    ) -> TeacherDescription:
        """See Engine.describe."""
        from teacher_serving.engines.local_model import describe_local_model

        if generation and generation.json_schema:
            raise InputError(
                'generation.json_schema: this engine cannot guide its decoding; use engine.kind = "vllm" or "endpoint"'
            )
        return describe_local_model(teacher, targets, generation, runs_encoders=True)

    def start(
        self, description: TeacherDescription, teacher: TeacherSettings, engine: EngineSettings, on_gpu: bool
    ) -> Teacher:
        """See Engine.start."""
        from teacher_serving.engines.transformers.teacher import TransformersTeacher

        assert isinstance(engine, TransformersSettings)
        resolved = teacher.model_copy(update={"dtype": description.spec.dtype})
        return TransformersTeacher(str(description.folder), resolved, engine, description.spec, description.tokenizer)

    def environment(self, engine: EngineSettings, on_gpu: bool) -> Mapping[str, str]:
        """See Engine.environment."""
        return {} if on_gpu else cpu_environment(engine.threads)
