"""What a capture job asks for: examples tokenised once, cut where they are too long, or refused one by one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import InputError
from cache.examples.example import Example, TokenizedExample
from cache.examples.jsonl import BadExample
from cache.examples.rendering import TargetsOf, render, render_prompt
from cache.examples.tokenizers import Tokenizer
from cache.examples.truncation import Truncation, truncate
from teacher_serving.asking.prompter import Prompter
from teacher_serving.asking.settings import GenerationSettings
from teacher_serving.teacher import Request

SCORED_ORIGIN = "scored"


@dataclass(frozen=True, slots=True)
class PlannedExample:
    """An example, and where the teacher reads another prompt than the record holds, that one.

    prompt: uint32 [n]; messages: the same as turns, for teachers that read those.
    """

    tokenized: TokenizedExample
    prompt: npt.NDArray[np.uint32] | None = None
    messages: tuple[dict[str, Any], ...] | None = None

    @property
    def key(self) -> str:
        return self.tokenized.key

    @property
    def teacher_prompt(self) -> npt.NDArray[np.uint32]:
        """What the teacher reads before it writes."""
        return self.tokenized.tokens if self.prompt is None else self.prompt

    @property
    def request(self) -> Request:
        """The request for a response."""
        example = self.tokenized.example
        messages = example.messages if self.messages is None else self.messages
        return Request(self.key, self.teacher_prompt, messages=messages, tools=example.tools)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a job asks for by key in order, and the examples set aside by key, with their id and the reason."""

    examples: dict[str, PlannedExample]
    rejected: dict[str, tuple[str, str]]

    @property
    def truncated(self) -> int:
        """Examples that lost tokens to fit."""
        return sum("truncated_tokens" in item.tokenized.example.metadata for item in self.examples.values())


@dataclass(frozen=True, slots=True)
class Limits:
    """What a teacher can read. max_tokens: longest example. vocab_size: ids from there on are unknown to it."""

    max_tokens: int
    vocab_size: int
    truncation: Truncation = "refuse"


def plan_capture(
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    limits: Limits,
    score: bool,
    targets_of: TargetsOf = "assistant",
    generation: GenerationSettings | None = None,
    prompter: Prompter | None = None,
) -> Plan:
    """Tokenise; the same examples give the same plan. Examples that cannot be captured are refused one by one."""
    plan = Plan({}, {})
    for number, example in enumerate(examples):
        asked: list[PlannedExample] = []
        try:
            if score and (example.rationale + example.response or example.is_trace):
                asked.append(PlannedExample(_fitting(render(example, tokenizer, targets_of), limits, 0)))
            if generation and (generation.examples is None or number < generation.examples):
                asked += _responses(example, tokenizer, limits, generation, prompter)
        except InputError as error:
            plan.rejected[rejection_key(repr(example))] = (example.id, str(error))
        for item in asked:
            plan.examples.setdefault(item.key, item)
    return plan


def reject_lines(plan: Plan, bad: Sequence[BadExample]) -> None:
    """Set aside the lines of an examples file that hold no example."""
    for line in bad:
        plan.rejected[rejection_key(f"line {line.line}: {line.reason}")] = (line.id, f"line {line.line}: {line.reason}")


def rejection_key(name: str) -> str:
    """Key for an example that cannot even be tokenised."""
    nothing = Example(name, ())
    return TokenizedExample(nothing, np.zeros(0, np.uint32), np.zeros(0, np.uint8), f"refused/{name}").key


def _responses(
    example: Example,
    tokenizer: Tokenizer,
    limits: Limits,
    generation: GenerationSettings,
    prompter: Prompter | None,
) -> list[PlannedExample]:
    prompt = render_prompt(example, tokenizer)
    room = generation.max_new_tokens
    if prompter is None or prompter.template is None:
        prompt = _fitting(prompt, limits, room)
        return [PlannedExample(replace(prompt, origin=f"generated/{i}")) for i in range(generation.samples)]
    templated = prompter.ask(example)
    asked = _fitting(render_prompt(templated, tokenizer), limits, room)
    if generation.context == "same":
        prompt = replace(asked, example=replace(example, metadata=asked.example.metadata))
    else:
        prompt = _fitting(prompt, limits, room)
        if "truncated_tokens" in asked.example.metadata:
            prompt = replace(prompt, example=replace(prompt.example, metadata=asked.example.metadata))
    return [
        PlannedExample(replace(prompt, origin=f"generated/{i}"), asked.tokens, templated.messages)
        for i in range(generation.samples)
    ]


def _fitting(tokenized: TokenizedExample, limits: Limits, room: int) -> TokenizedExample:
    """The example cut to what the teacher reads, less the `room` that it needs to write.

    Raises InputError where it cannot be.
    """
    n = len(tokenized.tokens)
    if n == 0:
        raise InputError("no tokens")
    largest = int(tokenized.tokens.max())
    if largest >= limits.vocab_size:
        raise InputError(
            f"token {largest} is outside the teacher's vocabulary of {limits.vocab_size}; use the model's own tokenizer"
        )
    if room and n + room > limits.max_tokens and limits.truncation == "refuse":
        raise InputError(f"{n} + {room} tokens are more than teacher.max_tokens = {limits.max_tokens}")
    if room >= limits.max_tokens:
        raise InputError(
            f"generation.max_new_tokens = {room} leaves nothing of teacher.max_tokens = {limits.max_tokens} to a prompt"
        )
    return truncate(tokenized, limits.max_tokens - room, limits.truncation)
