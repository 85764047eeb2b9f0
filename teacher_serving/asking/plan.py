"""Plan a capture: tokenise each example once, truncate it if it is too long, or reject it with a reason."""

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
    """A tokenised example, and the prompt for the teacher if it differs from the prompt of the record.

    prompt: uint32 [n], tokens of that prompt. messages: the same prompt as chat turns, for services.
    """

    tokenized: TokenizedExample
    prompt: npt.NDArray[np.uint32] | None = None
    messages: tuple[dict[str, Any], ...] | None = None

    @property
    def key(self) -> str:
        return self.tokenized.key

    @property
    def teacher_prompt(self) -> npt.NDArray[np.uint32]:
        """Tokens of the prompt that the teacher responds to."""
        return self.tokenized.tokens if self.prompt is None else self.prompt

    @property
    def request(self) -> Request:
        """The request that generates a response."""
        example = self.tokenized.example
        messages = example.messages if self.messages is None else self.messages
        return Request(self.key, self.teacher_prompt, messages=messages, tools=example.tools)


@dataclass(frozen=True, slots=True)
class Plan:
    """Examples to capture by key, in order, and rejected examples by key, each with its id and the reason."""

    examples: dict[str, PlannedExample]
    rejected: dict[str, tuple[str, str]]

    @property
    def truncated(self) -> int:
        """Number of truncated examples."""
        return sum("truncated_tokens" in item.tokenized.example.metadata for item in self.examples.values())


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a teacher. max_tokens: longest example. vocab_size: token ids must be below it."""

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
    """Tokenise the examples and return the plan. Deterministic. One bad example does not affect the others."""
    plan = Plan({}, {})
    for number, example in enumerate(examples):
        planned: list[PlannedExample] = []
        try:
            if score and (example.rationale + example.response or example.is_trace):
                planned.append(PlannedExample(_fit(render(example, tokenizer, targets_of), limits, 0)))
            if generation and (generation.examples is None or number < generation.examples):
                planned += _plan_responses(example, tokenizer, limits, generation, prompter)
        except InputError as error:
            plan.rejected[rejection_key(repr(example))] = (example.id, str(error))
        for item in planned:
            plan.examples.setdefault(item.key, item)
    return plan


def reject_lines(plan: Plan, bad: Sequence[BadExample]) -> None:
    """Add the lines of an examples file that are not valid examples to the rejected ones."""
    for line in bad:
        plan.rejected[rejection_key(f"line {line.line}: {line.reason}")] = (line.id, f"line {line.line}: {line.reason}")


def rejection_key(name: str) -> str:
    """Return a key for an example that could not be tokenised."""
    empty = Example(name, ())
    return TokenizedExample(empty, np.zeros(0, np.uint32), np.zeros(0, np.uint8), f"refused/{name}").key


def _plan_responses(
    example: Example,
    tokenizer: Tokenizer,
    limits: Limits,
    generation: GenerationSettings,
    prompter: Prompter | None,
) -> list[PlannedExample]:
    prompt = render_prompt(example, tokenizer)
    room = generation.max_new_tokens
    if prompter is None or prompter.template is None:
        prompt = _fit(prompt, limits, room)
        return [PlannedExample(replace(prompt, origin=f"generated/{i}")) for i in range(generation.samples)]
    templated = prompter.apply_template(example)
    teacher_prompt = _fit(render_prompt(templated, tokenizer), limits, room)
    if generation.context == "same":
        prompt = replace(teacher_prompt, example=replace(example, metadata=teacher_prompt.example.metadata))
    else:
        prompt = _fit(prompt, limits, room)
        if "truncated_tokens" in teacher_prompt.example.metadata:
            prompt = replace(prompt, example=replace(prompt.example, metadata=teacher_prompt.example.metadata))
    return [
        PlannedExample(replace(prompt, origin=f"generated/{i}"), teacher_prompt.tokens, templated.messages)
        for i in range(generation.samples)
    ]


def _fit(tokenized: TokenizedExample, limits: Limits, room: int) -> TokenizedExample:
    """Truncate an example to the limits of the teacher, minus `room` tokens for its response.

    Raises InputError if the limits do not allow that.
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
