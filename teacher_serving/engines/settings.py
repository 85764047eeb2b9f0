"""Settings of a teacher and of what it is asked. Those that change content are told apart from those for speed."""

from typing import Literal, Self

from pydantic import Field, model_validator

from cache.settings import ModelPath, Settings
from teacher_serving.engines.endpoint.settings import EndpointSettings


class TeacherSettings(Settings):
    """The model and how it reads an example. dtype "auto" is the one its configuration names."""

    model: ModelPath = Field(description="folder or hub name; of an endpoint, the name that the service has for it")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    max_tokens: int = Field(2048, ge=2, description="longest example; longer ones go to quarantine")
    truncation: Literal["refuse", "left", "right"] = Field(
        "refuse", description="longer examples go to quarantine, or lose their first or their last tokens"
    )
    lora_path: ModelPath | None = Field(None, description="folder of a LoRA adapter of the model")
    quantization: str | None = Field(None, description="vLLM's name of a scheme, where the model's files name none")
    trust_remote_code: bool = False
    tokenizer: ModelPath | None = Field(
        None, description="of an endpoint: folder or hub name of the tokenizer that makes token ids of its texts"
    )


class EngineSettings(Settings):
    """How the teacher runs. Changes speed only, and which responses an engine draws when it writes.

    What an endpoint is, rather than how it is asked, is part of the fingerprint all the same.
    """

    kind: Literal["vllm", "transformers", "endpoint"] = "vllm"
    endpoint: EndpointSettings | None = Field(None, description='the service, with kind = "endpoint"')
    tensor_parallel: int = Field(1, ge=1)
    pipeline_parallel: int = Field(1, ge=1)
    batched_tokens: int = Field(
        2048, ge=64, description="tokens of one forward pass (on a CPU that generates at least max_tokens)"
    )
    reduction: Literal["auto", "public"] = Field(
        "auto", description="vLLM: logits to rows in its workers where they allow it, or by its public interface alone"
    )
    logits_mib: int = Field(512, ge=16, description="memory for logits that are being reduced, in MiB")
    gpu_memory_utilization: float = Field(0.85, gt=0, le=1)
    cpu_threads: int = Field(1, ge=1, description="threads of one engine where there is no GPU")

    @model_validator(mode="after")
    def _kind_says_where_it_runs(self) -> Self:
        if self.kind == "endpoint" and self.endpoint is None:
            raise ValueError('kind = "endpoint" needs a table [engine.endpoint] with at least api and top_logprobs')
        if self.kind != "endpoint" and self.endpoint is not None:
            raise ValueError(f'[engine.endpoint] is for kind = "endpoint", and kind is "{self.kind}"')
        return self

    @property
    def gpus(self) -> int:
        """GPUs of one engine where the cluster has any."""
        return 0 if self.kind == "endpoint" else self.tensor_parallel * self.pipeline_parallel
