"""Describe a capture from a service: what its API provides, and what the settings say of the model."""

from typing import Any

from cache.errors import InputError
from cache.examples.token_bytes import ids_by_bytes
from cache.examples.tokenizers import load_tokenizer, tokenizer_digest
from cache.json_documents import digest
from cache.rendering.prompt_form import PromptForm, require_template_variables
from cache.rows.spec import SamplingSpec, StoreSpec, TargetSpec
from teacher_serving.asking.prompter import make_prompter, prompting_spec
from teacher_serving.asking.settings import GenerationSettings
from teacher_serving.engines.description import TeacherDescription
from teacher_serving.engines.endpoint.settings import MAX_CHAT_LOGPROBS, EndpointSettings
from teacher_serving.engines.prompt_settings import choose_template_date
from teacher_serving.engines.settings import TeacherSettings
from teacher_serving.reduction.settings import TargetSettings

MAX_TEMPERATURE = {"openai": 2.0, "anthropic": 1.0}


def describe_endpoint(
    teacher: TeacherSettings,
    endpoint: EndpointSettings,
    targets: TargetSettings,
    generation: GenerationSettings | None,
    score: bool,
) -> TeacherDescription:
    """Describe a capture from a service. Sends no request. Raises InputError for what the service cannot provide."""
    target_spec = make_target_spec(targets, endpoint)
    sampling = generation.sampling if generation else None
    _require_scoring(endpoint, targets, generation, score)
    _require_valid_settings(teacher, endpoint, sampling)
    tokenizer = _open_tokenizer(teacher)
    if endpoint.api == "openai" and endpoint.top_logprobs:
        ids_by_bytes(tokenizer, fix="set engine.endpoint.top_logprobs = 0")  # raises InputError if it cannot be done
    require_template_variables(tokenizer, teacher.chat_template_kwargs, "teacher.chat_template_kwargs")
    date = choose_template_date(teacher, tokenizer) if endpoint.api == "vllm" else ""
    form = PromptForm(teacher.chat_template_kwargs, date)
    prompter = make_prompter(generation, teacher.max_tokens, form) if generation else None
    spec = StoreSpec(
        teacher=teacher.model,
        weights=f"service:{endpoint.api}:{teacher.model}:{endpoint.revision}",
        tokenizer=tokenizer_digest(tokenizer),
        chat_template=digest(tokenizer.chat_template),
        vocab_size=max(len(tokenizer), max(tokenizer.get_vocab().values()) + 1),
        tokenizer_size=len(tokenizer),
        dtype="unknown",
        targets=target_spec,
        sampling=sampling,
        truncation=teacher.truncation,
        service=describe_service(endpoint, sampling),
        asked=targets.of,
        prompting=prompting_spec(generation, prompter) if generation and prompter else None,
        chat_template_kwargs=teacher.chat_template_kwargs,
        template_date=form.template_date,
    )
    return TeacherDescription(spec, None, str(teacher.tokenizer), teacher.trust_remote_code, prompter, form)


def describe_service(endpoint: EndpointSettings, sampling: SamplingSpec | None) -> str:
    """Describe what a service provides. The text is part of the fingerprint, so it contains no address."""
    is_guided = bool(sampling and sampling.json_schema)
    if endpoint.api == "vllm":
        return "vllm completions: log-probabilities by token id; scoring; seeded draws"
    if endpoint.api == "anthropic":
        return "anthropic messages: text only; no scoring; no seed" + (
            "; answers from a forced tool" if is_guided else ""
        )
    text = "openai chat completions: text only; no scoring; no seed"
    if endpoint.top_logprobs:
        text = f"openai chat completions: at most {MAX_CHAT_LOGPROBS} log-probabilities, by bytes; no scoring; no seed"
        if sampling and (sampling.temperature, sampling.top_p) != (1.0, 1.0):
            # It is unknown whether a service's log-probabilities are those of the raw logits.
            text += f"; log-probabilities as told at temperature {sampling.temperature}, top-p {sampling.top_p}"
        if is_guided:  # nor whether the schema is applied before or after them
            text += "; log-probabilities as told with the schema"
    return text + (f"; guided by {endpoint.schema_form}" if is_guided else "")


def make_target_spec(targets: TargetSettings, endpoint: EndpointSettings) -> TargetSpec:
    """Make the spec of targets that a service can provide. Without targets.k, k is its top_logprobs.

    Raises InputError for targets that it cannot provide.
    """
    top_logprobs = endpoint.top_logprobs
    if targets.mode not in ("topk", "nucleus"):
        raise InputError(
            f'targets.mode = "{targets.mode}" needs the whole distribution, but a service returns only its most likely '
            'tokens; use "topk" or "nucleus"'
        )
    for name in ("entropy", "temperatures"):
        if getattr(targets, name):
            raise InputError(f"targets.{name}: a service does not return the whole distribution; leave it out")
    if top_logprobs == 0 and (targets.k is not None or targets.mode != "topk"):
        raise InputError("engine.endpoint.top_logprobs = 0 captures text only; leave out targets.k and targets.mode")
    if targets.k is not None and targets.k > top_logprobs:
        raise InputError(
            f"targets.k = {targets.k} is more than engine.endpoint.top_logprobs = {top_logprobs}; lower it"
        )
    return targets.spec_with(k=top_logprobs)


def _require_scoring(
    endpoint: EndpointSettings, targets: TargetSettings, generation: GenerationSettings | None, score: bool
) -> None:
    """Raise InputError if the job needs scores that the service does not provide."""
    api = f'engine.endpoint.api = "{endpoint.api}"'
    if endpoint.api == "vllm":
        if score and endpoint.top_logprobs == 0:
            raise InputError("engine.endpoint.top_logprobs = 0 stores nothing of a scored response; raise it")
        return
    if score:
        raise InputError(f"{api}: this service cannot score given responses; set score = false")
    if targets.of == "all":
        raise InputError(f'targets.of = "all": {api} cannot score a prompt; leave it out')
    if generation and generation.keep == "rationalize":
        raise InputError(f'generation.keep = "rationalize" scores responses, which {api} cannot do; use another value')


def _require_valid_settings(
    teacher: TeacherSettings, endpoint: EndpointSettings, sampling: SamplingSpec | None
) -> None:
    """Raise InputError for settings of the teacher that have no effect on a service."""
    for name in ("lora_path", "quantization"):
        if getattr(teacher, name):
            raise InputError(f"teacher.{name}: the service decides how its model is served; leave it out")
    if teacher.dtype != "auto":
        raise InputError(f'teacher.dtype = "{teacher.dtype}": the dtype of a service is unknown; leave it out')
    if endpoint.api == "vllm":
        return
    for name in ("chat_template_kwargs", "template_date"):
        if getattr(teacher, name):
            raise InputError(f"teacher.{name}: the service applies its own chat template; leave it out")
    if teacher.truncation != "refuse":
        raise InputError(
            f'teacher.truncation = "{teacher.truncation}": the service reads whole turns, which cannot be '
            "truncated; leave it out"
        )
    max_temperature = MAX_TEMPERATURE[endpoint.api]
    if sampling and sampling.temperature > max_temperature:
        raise InputError(
            f"generation.temperature = {sampling.temperature}: {endpoint.api} accepts at most {max_temperature}; "
            "lower it"
        )


def _open_tokenizer(teacher: TeacherSettings) -> Any:
    name = teacher.tokenizer
    if name is None:
        raise InputError(
            "teacher.tokenizer is missing: an endpoint needs the folder or hub name of the served model's tokenizer"
        )
    return load_tokenizer(name, teacher.trust_remote_code, what="teacher.tokenizer")
