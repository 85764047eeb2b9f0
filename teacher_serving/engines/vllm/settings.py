"""Settings of the vLLM engine."""

from typing import Any, Literal

from pydantic import Field

from cache.rows.spec import TargetMode
from teacher_serving.engines.settings import EngineSettings
from teacher_serving.reduction.settings import OF_LIKELY_TOKENS


class VllmSettings(EngineSettings):
    """How vLLM runs a teacher."""

    kind: Literal["vllm"] = Field("vllm", description="selects this engine")
    tensor_parallel: int = Field(1, ge=1, description="GPUs that share each layer")
    pipeline_parallel: int = Field(1, ge=1, description="groups of GPUs that share the layers")
    batched_tokens: int = Field(
        2048, ge=64, description="tokens of one forward pass (on a CPU that generates, at least max_tokens)"
    )
    reduction: Literal["auto", "public"] = Field(
        "auto",
        description='where logits become rows: "auto" in vLLM\'s workers if they allow it, "public" through the public '
        "log-probabilities only",
    )
    logits_mib: int = Field(512, ge=16, description="memory for logits that are being reduced, in MiB")
    gpu_memory_utilization: float = Field(0.85, gt=0, le=1, description="share of a GPU's memory that vLLM may use")
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="more arguments of vllm.LLM by name, such as { enforce_eager = true }; those that change more than "
        "the speed, such as hf_overrides or kv_cache_dtype, become a part of the store's identity",
    )

    def unused_keys(self) -> dict[str, str]:
        if self.reduction == "public":
            return {"logits_mib": 'reduction = "public" reads log-probabilities, not logits'}
        return {}

    @property
    def gpus(self) -> int:
        """GPUs of one engine, in a cluster that has any."""
        return self.tensor_parallel * self.pipeline_parallel

    @property
    def default_mode(self) -> TargetMode:
        """See EngineSettings.default_mode. The public log-probabilities are those of the likely tokens."""
        return OF_LIKELY_TOKENS if self.reduction == "public" else super().default_mode
