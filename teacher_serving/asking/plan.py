"""Plan a capture: tokenise each example once, truncate it if it is too long, or reject it with a reason."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import InputError
from cache.examples.example import Example, TokenizedExample
from cache.examples.files.jsonl import BadExample
from cache.examples.tokenizers import Tokenizer
from cache.examples.truncation import Truncation, truncate
from cache.rendering.chat_template import ROLES
from cache.rendering.prompt_form import DEFAULT_FORM, PromptForm
from cache.rendering.render import TargetsOf, render, render_prompt
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
        """The key of the record, 32 hexadecimal digits. It also depends on the prompt, if that is another one."""
        if self.prompt is None:
            return self.tokenized.key
        prompt = np.ascontiguousarray(self.prompt, dtype="<u4").tobytes()
        return hashlib.sha256(self.tokenized.key.encode() + prompt).hexdigest()[:32]

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


@dataclass(slots=True)
class Plan:
    """What to capture, and what not.

    examples: responses to capture by key, in order; numbers: for which example each was planned, the first of several.
    count: how many examples there are of which nothing is rejected; partial: the numbers of the others.
    rejected: rejected examples by key, each with its id and the reason.
    duplicates: the id of each example that is equal to an earlier one, and the id of that one.
    unanswered: ids of the examples that have no response and get none from the teacher.
    """

    examples: dict[str, PlannedExample] = field(default_factory=dict)
    rejected: dict[str, tuple[str, str]] = field(default_factory=dict)
    duplicates: list[tuple[str, str]] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)
    partial: set[int] = field(default_factory=set)
    count: int = 0

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
    form: PromptForm = DEFAULT_FORM,
    first: int = 0,
) -> Plan:
    """Tokenise the examples and return the plan. Deterministic. One bad example does not affect the others.

    Every example is in exactly one part of the plan. first: how many examples of the job come before these.
    """
    plan = Plan()
    for number, example in enumerate(examples, start=first):
        planned: list[PlannedExample] = []
        try:
            if score and example.has_response:
                _require_words(example)
                planned.append(PlannedExample(_fit(render(example, tokenizer, targets_of, form), limits, 0)))
            if generation and (generation.examples is None or number < generation.examples):
                planned += _plan_responses(example, tokenizer, limits, generation, prompter, form)
        except InputError as error:
            _reject(plan, example, str(error))
            plan.partial.add(number)
            plan.examples |= {item.key: item for item in planned if item.key not in plan.examples}
        else:
            _add(plan, example, {item.key: item for item in planned})
        for item in planned:
            plan.numbers.setdefault(item.key, number)
    return plan


def _reject(plan: Plan, example: Example, reason: str) -> None:
    try:
        name = example.identity
    except InputError:  # a value that no store can contain
        name = repr(example)
    key = rejection_key(name)
    if key in plan.rejected:
        plan.duplicates.append((example.id, plan.rejected[key][0]))
    else:
        plan.rejected[key] = (example.id, reason)


def _add(plan: Plan, example: Example, planned: dict[str, PlannedExample]) -> None:
    """Add the responses of an example to the plan, or say why there are none."""
    role = example.messages[-1]["role"] if example.messages else "user"
    if not planned and role not in ROLES:
        # Such a turn is probably the answer, under the name that other files use.
        _reject(plan, example, f"the last turn has the role {role!r}; use 'assistant' for the turns of the assistant")
    elif not planned:
        plan.unanswered.append(example.id)
    elif all(key in plan.examples for key in planned):
        earlier = plan.examples[next(iter(planned))].tokenized.example.id
        plan.duplicates.append((example.id, earlier))
    else:
        plan.count += 1
        for key, item in planned.items():
            plan.examples.setdefault(key, item)


def _require_words(example: Example) -> None:
    """Raise InputError if a chat ends with a turn of the assistant that contains nothing."""
    last = example.messages[-1] if example.messages else {}
    contains = (last.get("content") or "").strip() or last.get("tool_calls") or last.get("reasoning_content")
    if example.is_trace and not contains:
        raise InputError("the last turn, the assistant's, is empty; give its text, or remove the turn")


def reject_lines(plan: Plan, bad: Sequence[BadExample]) -> None:
    """Add the lines of an examples file that are not valid examples to the rejected ones."""
    for line in bad:
        reason = f"{line.place}: {line.reason}"
        plan.rejected[rejection_key(reason)] = (line.id, reason)


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
    form: PromptForm,
) -> list[PlannedExample]:
    prompt = _without_response(render_prompt(example, tokenizer, form))
    room = generation.max_new_tokens
    if prompter is None or prompter.template is None:
        prompt = _fit(prompt, limits, room)
        return [PlannedExample(replace(prompt, origin=f"generated/{i}")) for i in range(generation.samples)]
    templated = prompter.apply_template(example)
    teacher_prompt = _fit(render_prompt(templated, tokenizer, form), limits, room)
    if generation.context == "same":
        prompt = _without_response(replace(teacher_prompt, example=example))
        prompt = replace(prompt, example=replace(prompt.example, metadata=teacher_prompt.example.metadata))
    else:
        prompt = _fit(prompt, limits, room)
        if "truncated_tokens" in teacher_prompt.example.metadata:
            prompt = replace(prompt, example=replace(prompt.example, metadata=teacher_prompt.example.metadata))
    return [
        PlannedExample(replace(prompt, origin=f"generated/{i}"), teacher_prompt.tokens, templated.messages)
        for i in range(generation.samples)
    ]


def _without_response(prompt: TokenizedExample) -> TokenizedExample:
    """Remove the example's own response, of which the record of the teacher's response keeps nothing.

    Where the messages begin the answer, it stays: without it they would be a complete chat.
    """
    example = prompt.example
    if example.messages and example.messages[-1]["role"] == "assistant":
        return prompt
    return replace(prompt, example=replace(example, rationale="", response=""))


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
