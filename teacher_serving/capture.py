"""Capture: examples -> teacher -> records -> a committed part. Knows nothing of Ray or of processes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cache.codebook import Codebook
from cache.errors import InputError
from cache.example import Example, Segment, TokenizedExample
from cache.record import Record
from cache.rendering import Tokenizer, decode, render, render_prompt, split_response
from cache.spec import StoreSpec
from cache.storage import Storage
from cache.writer import write_unit
from teacher_serving.capture_rows import nucleus, place_rows
from teacher_serving.config import EngineSettings, GenerationSettings, TeacherSettings
from teacher_serving.teacher import Generated, Teacher
from teacher_serving.transformers_teacher import TransformersTeacher
from teacher_serving.vllm_teacher import VllmTeacher


@dataclass(frozen=True, slots=True)
class UnitSummary:
    """What capturing one unit came to. rows: tokens with a target; won: this part is the one that counts."""

    unit: str
    examples: int
    rows: int
    won: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What a job asks for: tokenised examples by key in order, and those set aside with the reason."""

    wanted: dict[str, TokenizedExample]
    refused: dict[str, tuple[str, str]]


def start_teacher(
    folder: Path, teacher: TeacherSettings, engine: EngineSettings, spec: StoreSpec, on_gpu: bool
) -> Teacher:
    """Load the model into the engine that the settings name."""
    resolved = teacher.model_copy(update={"dtype": spec.dtype})
    if engine.kind == "transformers":
        return TransformersTeacher(str(folder), resolved, spec.targets.k)
    return VllmTeacher(str(folder), resolved, engine, spec.targets.k, spec.vocab_size, on_gpu)


def plan_capture(
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    score: bool,
    generation: GenerationSettings | None,
    max_tokens: int,
) -> Plan:
    """Tokenise; the same examples give the same plan. Examples that cannot be captured are refused one by one."""
    plan = Plan({}, {})
    for number, example in enumerate(examples):
        asked: list[TokenizedExample] = []
        try:
            if score and example.rationale + example.response:
                asked.append(render(example, tokenizer))
            if generation and (generation.examples is None or number < generation.examples):
                prompt = render_prompt(example, tokenizer)
                asked += [replace(prompt, origin=f"generated/{i}") for i in range(generation.samples)]
        except InputError as error:
            plan.refused[refusal_key(example)] = (example.id, str(error))
        for item in asked:
            room = generation.max_new_tokens if generation and item.origin != "scored" else 0
            if len(item.tokens) == 0:
                plan.refused[item.key] = (example.id, "no tokens")
            elif len(item.tokens) + room > max_tokens:
                reason = f"{len(item.tokens)} + {room} tokens are more than teacher.max_tokens = {max_tokens}"
                plan.refused[item.key] = (example.id, reason)
            else:
                plan.wanted.setdefault(item.key, item)
    return plan


def refusal_key(example: Example) -> str:
    """Key for an example that cannot even be tokenised."""
    return TokenizedExample(example, np.zeros(0, np.uint32), np.zeros(0, np.uint8), f"refused/{example.id}").key


def capture_unit(
    teacher: Teacher,
    unit: Sequence[TokenizedExample],
    tokenizer: Tokenizer,
    storage: Storage,
    spec: StoreSpec,
    codebook: Codebook | None = None,
) -> UnitSummary:
    """Ask the teacher about every example of a unit, write the part and commit it.

    codebook: the store's, where the caller holds it already.
    """
    # Longest first keeps the engine's batches full to the end.
    order = sorted(range(len(unit)), key=lambda i: -len(unit[i].tokens))
    scored = [i for i in order if unit[i].origin == "scored"]
    written = [i for i in order if unit[i].origin != "scored"]
    records: dict[int, Record] = {}
    # The last prompt row is the law of the first response token.
    first_rows = [max(unit[i].prompt_length - 1, 0) for i in scored]
    answers = teacher.score([unit[i].tokens for i in scored], first_rows) if scored else []
    for i, answer in zip(scored, answers, strict=True):
        records[i] = Record(unit[i].key, unit[i], answer.targets, answer.token_logprobs)
    if written and spec.sampling:
        sampling = spec.sampling
        seeds = [sampling_seed(unit[i].key, sampling.seed) for i in written]
        prompts = [unit[i].tokens for i in written]
        texts = teacher.generate(prompts, seeds, sampling)
        for i, text in zip(written, texts, strict=True):
            records[i] = generated_record(unit[i], text, tokenizer, sampling.answer_marker)
    if spec.targets.mode == "nucleus":
        records = {i: replace(r, targets=nucleus(r.targets, spec.targets.mass)) for i, r in records.items()}
    commit, won = write_unit(storage, spec, [records[i] for i in range(len(unit))], codebook=codebook)
    return UnitSummary(commit.unit, len(unit), commit.rows, won)


def sampling_seed(key: str, seed: int) -> int:
    """A seed of 31 bits for the draws of one example, the same whatever the unit or batch it is in."""
    return (int(key[:8], 16) ^ seed) & 0x7FFFFFFF


def generated_record(prompt: TokenizedExample, text: Generated, tokenizer: Tokenizer, marker: str) -> Record:
    """Prompt and response as one record, under the key of the prompt and sample number."""
    n = len(prompt.tokens)
    spoken = split_response(text.tokens, tokenizer, marker)
    first = int(np.count_nonzero(spoken == Segment.RATIONALE))
    parsed = not marker or marker in decode(text.tokens, tokenizer)
    example = replace(
        prompt.example,
        rationale=decode(text.tokens[:first], tokenizer),
        response=decode(text.tokens[first:], tokenizer),
        metadata={**prompt.example.metadata, "finished": text.finished, "parsed": parsed},
    )
    tokenized = TokenizedExample(
        example,
        np.concatenate([prompt.tokens, text.tokens]),
        np.concatenate([prompt.segments, spoken]),
        prompt.origin,
    )
    token_logprobs = np.concatenate([np.full(n, np.nan, np.float32), text.token_logprobs])
    return Record(prompt.key, tokenized, place_rows(text.rows, n - 1, n + len(text.tokens)), token_logprobs)
