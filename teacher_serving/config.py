"""Settings of a teacher and of what it is asked. Those that change content are told apart from those for speed."""

import re
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from cache.settings import Settings
from cache.spec import SamplingSpec, TargetMode, TargetSpec
from teacher_serving.answers import Keep

# The services' own limit.
MOST_CHAT_LOGPROBS = 20


class TeacherSettings(Settings):
    """The model and how it reads an example. dtype "auto" is the one its configuration names."""

    model: str = Field(description="folder or hub name; of an endpoint, the name that the service has for it")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    max_tokens: int = Field(2048, ge=2, description="longest example; longer ones go to quarantine")
    truncation: Literal["refuse", "left", "right"] = Field(
        "refuse", description="longer examples go to quarantine, or lose their first or their last tokens"
    )
    lora_path: str | None = Field(None, description="folder of a LoRA adapter of the model")
    quantization: str | None = Field(None, description="vLLM's name of a scheme, where the model's files name none")
    trust_remote_code: bool = False
    tokenizer: str | None = Field(
        None, description="of an endpoint: folder or hub name of the tokenizer that makes token ids of its texts"
    )


class EndpointSettings(Settings):
    """A service that runs the model elsewhere.

    Its key is in an environment variable, and in no file: actors inherit the variable from the Ray that they run in, so
    on a cluster it must be set where each node's Ray is started (an embedded Ray has that of the command).
    """

    api: Literal["vllm", "openai", "anthropic"] = Field(
        description='"vllm": completions by token id, scores too; "openai": chat completions; "anthropic": messages'
    )
    base_url: str | None = Field(
        None, description="address of the service, without the path of a call (OpenAI's and vLLM's end in /v1)"
    )
    api_key_env: str | None = Field(
        None,
        description="name of the environment variable with the key (OPENAI_API_KEY or ANTHROPIC_API_KEY for these "
        "services themselves; no key is sent to another base_url unless its variable is named)",
    )
    top_logprobs: int = Field(ge=0, description="log-probabilities asked for a token; 0 for text only")
    revision: str = Field("", description="what you know of the version that is served; part of the fingerprint")
    concurrency: int = Field(8, ge=1, description="requests under way at a time")
    requests_per_minute: float | None = Field(
        None, gt=0, description="begun at most, without further tries of one; no limit if not given"
    )
    max_retries: int = Field(6, ge=0, description="further tries, with growing pauses or those that the service names")
    timeout_s: float = Field(600.0, gt=0, description="longest wait for one answer")
    price_input: float = Field(0.0, ge=0, description="of a million tokens read, in any currency")
    price_output: float = Field(0.0, ge=0, description="of a million tokens written")

    @model_validator(mode="after")
    def _service_can_give_it(self) -> Self:
        if self.api == "vllm" and self.base_url is None:
            raise ValueError('api = "vllm" needs the server\'s base_url, such as "http://host:8000/v1"')
        if self.api == "openai" and self.top_logprobs > MOST_CHAT_LOGPROBS:
            raise ValueError(
                f"chat completions give at most {MOST_CHAT_LOGPROBS} log-probabilities; lower top_logprobs"
            )
        if self.api == "anthropic" and self.top_logprobs:
            raise ValueError("the messages API gives no log-probabilities; set top_logprobs = 0")
        # Neither message repeats the value: it may hold a key.
        address = urlsplit(self.base_url or "http://service")
        if address.scheme not in ("http", "https") or not address.hostname or "@" in address.netloc or address.query:
            raise ValueError("base_url must be http(s)://host..., without user, password or query")
        if self.api_key_env is not None and not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", self.api_key_env):
            raise ValueError("api_key_env must be the name of an environment variable, not the key")
        return self

    @property
    def key_variable(self) -> str | None:
        """Environment variable that holds the key; None where none is sent."""
        if self.api_key_env is not None or self.base_url is not None:
            return self.api_key_env
        return {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}.get(self.api)


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


class TargetSettings(Settings):
    """What is kept of each distribution (cache/spec.py, TargetSpec, says what each field means)."""

    mode: TargetMode = "topk"
    k: int | None = Field(None, ge=1, description="entries of topk, and at most of nucleus; 64 if not given")
    mass: float = Field(0.0, ge=0, lt=1, description="probability that a nucleus holds")
    threshold: float = Field(0.0, ge=0, le=0.5, description="probability from which an entry of threshold is exact")
    draws: int = Field(0, ge=0, le=4096, description="draws of sampled")
    systematic: bool = Field(False, description="draws at even distances: the same bytes, much less noise")
    entropy: bool = Field(False, description="keep the entropy of each whole distribution")
    temperatures: tuple[float, ...] = Field((), description="keep the log-normalisers at these temperatures")
    of: Literal["assistant", "all"] = Field("assistant", description='whose tokens; "all" takes the prompt too')
    step: float = Field(TargetSpec().step, gt=0, le=1, description="spacing in nats of stored log-probabilities")
    tail_step: float = Field(TargetSpec().tail_step, gt=0, le=2, description="greatest spacing, far below 1 / k")

    @model_validator(mode="after")
    def _each_mode_has_its_own(self) -> Self:
        if (self.mode == "nucleus") != (self.mass > 0):
            raise ValueError('"nucleus" needs a mass between 0 and 1, such as 0.98, and no other mode has one')
        if (self.mode == "threshold") != (self.threshold > 0):
            raise ValueError('"threshold" needs a threshold up to 0.5, such as 0.05, and no other mode has one')
        if (self.mode == "sampled") != (self.draws > 0):
            raise ValueError('"sampled" needs a number of draws, such as 50, and no other mode has one')
        if self.systematic and self.mode != "sampled":
            raise ValueError('"systematic" is a way to draw for mode = "sampled"')
        if self.mode in ("threshold", "sampled") and self.k is not None:
            raise ValueError(f'"{self.mode}" has no k: leave it out')
        if any(not 0 < t < 100 or t == 1 for t in self.temperatures):
            raise ValueError("temperatures must be above 0 and other than 1, whose log-normaliser is 0")
        return self

    @property
    def spec(self) -> TargetSpec:
        """The settings as a store keeps them."""
        values = self.model_dump(exclude={"of"})
        if values["k"] is None:
            values["k"] = 64 if self.mode in ("topk", "nucleus") else 0
        return TargetSpec(**values)


class GenerationSettings(Settings):
    """Responses that the teacher writes itself, with the targets of every token of them."""

    samples: int = Field(1, ge=1, description="responses for each prompt")
    examples: int | None = Field(None, ge=1, description="only for the first so many examples; all if not given")
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_new_tokens: int = Field(256, ge=1)
    seed: int = Field(0, ge=0)
    answer_marker: str = Field("", description='text between the rationale and the label, such as "Answer:"')
    stop: str = Field("", description='text at the start of a line from which a response is cut, such as "Q:"')
    template: str | None = Field(None, description="how the teacher is asked: a built-in template, or a .jinja file")
    shots: Path | None = Field(None, description="worked examples for the template, JSON Lines")
    context: Literal["bare", "same"] = Field(
        "bare", description="prompt of the records: the example's own, or the one that the template made of it"
    )
    keep: Keep = Field("all", description="all responses, those whose label agrees with the example's, or ask again")
    hint_template: str = Field("hint", description='how the teacher is asked again, with keep = "rationalize"')

    @model_validator(mode="after")
    def _labels_need_a_marker(self) -> Self:
        if self.template and not self.answer_marker:
            raise ValueError('a template needs the answer_marker that it asks for; the built-in ones ask for "Answer:"')
        if self.shots and not self.template:
            raise ValueError("shots are shown by a template; name one")
        return self

    @property
    def sampling(self) -> SamplingSpec:
        """How responses are drawn, as a store keeps it."""
        return SamplingSpec(
            self.samples, self.temperature, self.top_p, self.max_new_tokens, self.seed, self.answer_marker
        )
