"""The vLLM engine as the registry sees it: its settings, and how to describe and start a teacher on it."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from cache.errors import InputError
from teacher_serving.asking.settings import GenerationSettings
from teacher_serving.engines.description import TeacherDescription
from teacher_serving.engines.settings import EngineSettings, TeacherSettings
from teacher_serving.engines.vllm.more_options import options_of_content, require_known
from teacher_serving.engines.vllm.process import process_environment
from teacher_serving.engines.vllm.settings import VllmSettings
from teacher_serving.reduction.settings import TargetSettings
from teacher_serving.teacher import Teacher


class VllmEngine:
    """Causal models on vLLM."""

    name = "vllm"
    settings = VllmSettings

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
        from teacher_serving.engines.vllm.llm_options import lora_options

        assert isinstance(engine, VllmSettings)
        require_known(engine.options)
        description = describe_local_model(teacher, targets, generation, runs_encoders=False)
        _require_no_drafter(teacher.model, description.folder)
        if teacher.lora_path:
            lora_options(Path(teacher.lora_path))  # raises InputError for what vLLM cannot apply
        return replace(description, spec=replace(description.spec, engine_options=options_of_content(engine.options)))

    def start(
        self, description: TeacherDescription, teacher: TeacherSettings, engine: EngineSettings, on_gpu: bool
    ) -> Teacher:
        """See Engine.start."""
        from teacher_serving.engines.vllm.teacher import VllmTeacher

        assert isinstance(engine, VllmSettings)
        resolved = teacher.model_copy(update={"dtype": description.spec.dtype})
        return VllmTeacher(str(description.folder), resolved, engine, description.spec, on_gpu)

    def environment(self, engine: EngineSettings, on_gpu: bool) -> Mapping[str, str]:
        """See Engine.environment."""
        return process_environment(engine.threads, on_gpu)


def _require_no_drafter(name: str, folder: Path | None) -> None:
    """Raise InputError for a model that only drafts: vLLM would load the model that it drafts for in its place."""
    if folder is not None and "speculators_config" in json.loads((folder / "config.json").read_text()):
        raise InputError(
            f"teacher {name!r} drafts tokens for another model (speculators_config in its config.json); give that model"
        )
