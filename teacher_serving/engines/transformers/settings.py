"""Settings of the Transformers engine."""

from typing import Literal

from pydantic import Field

from teacher_serving.engines.settings import EngineSettings


class TransformersSettings(EngineSettings):
    """How Transformers runs a teacher."""

    kind: Literal["transformers"] = Field("transformers", description="selects this engine")
    logits_mib: int = Field(512, ge=16, description="memory for logits that are being reduced, in MiB")
