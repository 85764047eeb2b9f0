"""Settings of the Transformers engine."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from teacher_serving.engines.settings import EngineSettings


class TransformersSettings(EngineSettings):
    """How Transformers runs a teacher."""

    unused_teacher_keys: ClassVar[Mapping[str, str]] = {
        **EngineSettings.unused_teacher_keys,
        "quantization": 'it is for engine.kind = "vllm"; give a model with quantised weights',
    }

    kind: Literal["transformers"] = Field("transformers", description="selects this engine")
    logits_mib: int = Field(512, ge=16, description="memory for logits that are being reduced, in MiB")
