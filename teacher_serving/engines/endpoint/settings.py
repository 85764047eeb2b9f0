"""Settings of a teacher behind an API."""

import re
from collections.abc import Mapping
from typing import ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from cache.rows.spec import TargetMode
from cache.settings import Settings
from teacher_serving.engines.settings import EngineSettings
from teacher_serving.reduction.settings import OF_LIKELY_TOKENS

# Limit of OpenAI's API.
MAX_CHAT_LOGPROBS = 20


class EndpointSettings(Settings):
    """A service that runs the model.

    Its API key is read from an environment variable and never written to a file. Actors inherit the variable from their
    Ray process: on a cluster, set it where Ray is started on each node. An embedded Ray inherits it from the command.
    """

    api: Literal["vllm", "openai", "anthropic"] = Field(
        description='"vllm": completions by token id, scores too; "openai": chat completions; "anthropic": messages'
    )
    base_url: str | None = Field(
        None, description="base address of the service, without the path of a call (OpenAI's and vLLM's end in /v1)"
    )
    api_key_env: str | None = Field(
        None,
        description="name of the environment variable with the API key; without base_url the default is OPENAI_API_KEY "
        "or ANTHROPIC_API_KEY, with base_url no key is sent by default",
    )
    top_logprobs: int = Field(ge=0, description="log-probabilities requested for each token; 0 for text only")
    schema_form: Literal["json_schema", "json_object"] = Field(
        "json_schema",
        description='how generation.json_schema is sent with api = "openai": as it is, or, for a service that knows no '
        "schemas, as the request for any JSON object",
    )
    revision: str = Field("", description="version of the served model, if you know it; part of the fingerprint")
    concurrency: int = Field(8, ge=1, description="requests sent at the same time")
    requests_per_minute: float | None = Field(
        None, gt=0, description="maximum number of requests a minute, without retries; no limit if not given"
    )
    max_retries: int = Field(
        6, ge=0, description="maximum retries of a request, after the pause that the service requests or one that grows"
    )
    timeout_s: float = Field(600.0, gt=0, description="longest wait for one answer, in seconds")
    price_input: float = Field(0.0, ge=0, description="price of a million prompt tokens, in any currency")
    price_output: float = Field(0.0, ge=0, description="price of a million response tokens")

    @model_validator(mode="after")
    def _check_service(self) -> Self:
        if self.api == "vllm" and self.base_url is None:
            raise ValueError('api = "vllm" needs the server\'s base_url, such as "http://host:8000/v1"')
        if self.api == "openai" and self.top_logprobs > MAX_CHAT_LOGPROBS:
            raise ValueError(
                f"chat completions return at most {MAX_CHAT_LOGPROBS} log-probabilities; lower top_logprobs"
            )
        if self.api == "anthropic" and self.top_logprobs:
            raise ValueError("the messages API returns no log-probabilities; set top_logprobs = 0")
        # The messages do not contain the value, because it may contain a key.
        address = urlsplit(self.base_url or "http://service")
        if address.scheme not in ("http", "https") or not address.hostname or "@" in address.netloc or address.query:
            raise ValueError("base_url must be http(s)://host..., without user, password or query")
        if self.api_key_env is not None and not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", self.api_key_env):
            raise ValueError("api_key_env must be the name of an environment variable, not the key")
        return self

    @property
    def key_variable(self) -> str | None:
        """Environment variable that contains the API key; None if no key is sent."""
        if self.api_key_env is not None or self.base_url is not None:
            return self.api_key_env
        return {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}.get(self.api)


class EndpointEngineSettings(EngineSettings):
    """How a service is used as a teacher. The table [engine.endpoint] describes the service."""

    unused_teacher_keys: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("dtype", "lora_path", "quantization"), "the service decides how its model is served"
    )

    kind: Literal["endpoint"] = Field("endpoint", description="selects this engine")
    endpoint: EndpointSettings = Field(description="the service")

    @property
    def gpus(self) -> int:
        """GPUs of one engine: none, the service has its own."""
        return 0

    @property
    def default_mode(self) -> TargetMode:
        """See EngineSettings.default_mode."""
        return OF_LIKELY_TOKENS

    def unused_keys_of_job(self) -> dict[str, str]:
        """See EngineSettings.unused_keys_of_job."""
        unused = super().unused_keys_of_job()
        if self.endpoint.api != "openai":
            unused["engine.endpoint.schema_form"] = f"the API {self.endpoint.api!r} has one form for a schema"
        if self.endpoint.api != "vllm":
            unused["generation.seed"] = f"the API {self.endpoint.api!r} takes no seed"
            own = "the service renders the turns itself"
            unused |= dict.fromkeys(("teacher.chat_template_kwargs", "teacher.template_date"), own)
            unused["teacher.truncation"] = "the service reads whole turns, which are not truncated"
        if self.endpoint.top_logprobs == 0:
            text_only = "engine.endpoint.top_logprobs = 0 captures text only"
            unused |= {f"targets.{name}": text_only for name in ("mode", "k", "mass", "step", "tail_step")}
        return unused

    def check_actors(self, actors: int) -> None:
        """Raise ValueError if several actors would each apply the limit of requests per minute."""
        if self.endpoint.requests_per_minute and actors > 1:
            raise ValueError(
                f"actors = {actors} would each apply engine.endpoint.requests_per_minute; set actors = 1 and "
                "engine.endpoint.concurrency to the number of parallel requests"
            )
