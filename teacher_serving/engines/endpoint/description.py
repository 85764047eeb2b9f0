"""Describe a teacher that a service runs: what the API can provide, and what the user says of its weights."""

from typing import Any

from cache.documents import digest
from cache.errors import InputError
from cache.examples.token_bytes import ids_by_bytes
from cache.examples.tokenizers import load_tokenizer, tokenizer_digest
from cache.rows.spec import SamplingSpec, StoreSpec, TargetSpec
from teacher_serving.asking.prompter import make_prompter, prompting_spec
from teacher_serving.asking.settings import GenerationSettings
from teacher_serving.engines.description import TeacherDescription
from teacher_serving.engines.endpoint.settings import MAX_CHAT_LOGPROBS, EndpointSettings
from teacher_serving.engines.settings import TeacherSettings
from teacher_serving.reduction.settings import TargetSettings

HIGHEST_TEMPERATURE = {"openai": 2.0, "anthropic": 1.0}


def describe_endpoint(
    teacher: TeacherSettings,
    endpoint: EndpointSettings,
    targets: TargetSettings,
    generation: GenerationSettings | None,
    score: bool,
) -> TeacherDescription:
    """Describe a capture from a service. No request is sent yet. Raises InputError for what it cannot provide."""
    target_spec = endpoint_targets(targets, endpoint)
    sampling = generation.sampling if generation else None
    _require_scoring(endpoint, targets, generation, score)
    _require_possible(teacher, endpoint, sampling)
    tokenizer = _open_tokenizer(teacher)
    if endpoint.api == "openai" and endpoint.top_logprobs:
        ids_by_bytes(tokenizer, fix="set engine.endpoint.top_logprobs = 0")  # raises where that cannot be
    prompter = make_prompter(generation, teacher.max_tokens) if generation else None
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
        service=service_text(endpoint, sampling),
        asked=targets.of,
        prompting=prompting_spec(generation, prompter) if generation and prompter else None,
    )
    return TeacherDescription(spec, None, str(teacher.tokenizer), teacher.trust_remote_code, prompter)


def service_text(endpoint: EndpointSettings, sampling: SamplingSpec | None) -> str:
    """What a service gives and what it does not. Part of the fingerprint: no address is in it."""
    if endpoint.api == "vllm":
        return "vllm completions: log-probabilities by token id; scoring; seeded draws"
    if endpoint.api == "anthropic":
        return "anthropic messages: text only; no scoring; no seed"
    if endpoint.top_logprobs == 0:
        return "openai chat completions: text only; no scoring; no seed"
    text = f"openai chat completions: at most {MAX_CHAT_LOGPROBS} log-probabilities, by bytes; no scoring; no seed"
    if sampling and (sampling.temperature, sampling.top_p) != (1.0, 1.0):
        # Services do not say whether theirs are those of the raw logits.
        text += f"; log-probabilities as told at temperature {sampling.temperature}, top-p {sampling.top_p}"
    return text


def endpoint_targets(targets: TargetSettings, endpoint: EndpointSettings) -> TargetSpec:
    """Targets that a service can give; k is its top_logprobs if none is given."""
    asked = endpoint.top_logprobs
    if targets.mode not in ("topk", "nucleus"):
        reason = "a service tells the likeliest tokens alone, and these need the whole distribution"
        raise InputError(f'targets.mode = "{targets.mode}": {reason}; use "topk" or "nucleus"')
    for name in ("entropy", "temperatures"):
        if getattr(targets, name):
            raise InputError(f"targets.{name}: a service does not tell the whole distribution; leave it out")
    if asked == 0 and (targets.k is not None or targets.mode != "topk"):
        raise InputError("engine.endpoint.top_logprobs = 0 is text only, which has no targets; leave out k and mode")
    if targets.k is not None and targets.k > asked:
        raise InputError(f"targets.k = {targets.k} is more than engine.endpoint.top_logprobs = {asked}; lower it")
    values = targets.model_dump(exclude={"of", "k"})
    return TargetSpec(k=asked if targets.k is None else targets.k, **values)


def _require_scoring(
    endpoint: EndpointSettings, targets: TargetSettings, generation: GenerationSettings | None, score: bool
) -> None:
    """Raise InputError where the job asks a service for scores that it does not give."""
    api = f'engine.endpoint.api = "{endpoint.api}"'
    if endpoint.api == "vllm":
        if score and endpoint.top_logprobs == 0:
            raise InputError("engine.endpoint.top_logprobs = 0 keeps nothing of a scored response; raise it")
        return
    if score:
        raise InputError(f"{api}: this service cannot score given responses; set score = false")
    if targets.of == "all":
        raise InputError(f'targets.of = "all": {api} cannot score a prompt; leave it out')
    if generation and generation.keep == "rationalize":
        raise InputError(f'generation.keep = "rationalize" scores responses, which {api} cannot; use another keep')


def _require_possible(teacher: TeacherSettings, endpoint: EndpointSettings, sampling: SamplingSpec | None) -> None:
    """Raise InputError for settings that a service knows nothing of."""
    for name in ("lora_path", "quantization"):
        if getattr(teacher, name):
            raise InputError(f"teacher.{name}: the service decides how its model is served; leave it out")
    if teacher.dtype != "auto":
        raise InputError(f'teacher.dtype = "{teacher.dtype}": a service\'s is unknown; leave it out')
    if endpoint.api == "vllm":
        return
    if teacher.truncation != "refuse":
        raise InputError(
            f'teacher.truncation = "{teacher.truncation}": the service reads whole turns, which are not cut; leave it '
            "out"
        )
    highest = HIGHEST_TEMPERATURE[endpoint.api]
    if sampling and sampling.temperature > highest:
        raise InputError(
            f"generation.temperature = {sampling.temperature}: {endpoint.api} takes at most {highest}; lower it"
        )


def _open_tokenizer(teacher: TeacherSettings) -> Any:
    name = teacher.tokenizer
    if name is None:
        raise InputError(
            "teacher.tokenizer is missing: an endpoint needs the folder or hub name of the served model's tokenizer"
        )
    return load_tokenizer(name, teacher.trust_remote_code, what="teacher.tokenizer")
