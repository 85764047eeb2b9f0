"""How a teacher is asked: an example to the tokens that it reads, and what the spec says of that."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from cache.documents import digest
from cache.errors import InputError
from cache.examples.example import Example
from cache.examples.rendering import render_prompt
from cache.examples.tokenizers import Tokenizer
from cache.rows.spec import PromptingSpec
from teacher_serving.asking.prompt_templates import PromptTemplate, Shot, fill, load_template, read_shots
from teacher_serving.asking.settings import GenerationSettings
from teacher_serving.teacher import Request


@dataclass(frozen=True, slots=True)
class Prompter:
    """Templates of a job. template: None where examples are asked as they are. hint: where a label may be told.

    longest: tokens of the longest prompt that leaves room for a response.
    """

    template: PromptTemplate | None
    hint: PromptTemplate | None
    shots: Sequence[Shot]
    longest: int

    def ask(self, example: Example) -> Example:
        """The example with the messages that the teacher reads. Raises InputError where it does not fit."""
        if self.template is None:
            return example
        return replace(example, messages=fill(self.template, example, self.shots))

    def hint_request(self, key: str, example: Example, tokenizer: Tokenizer) -> Request:
        """The prompt that tells the example's label. Raises InputError where it does not fit, or is too long."""
        if self.hint is None:
            raise InputError("no template tells the label")
        told = replace(example, messages=fill(self.hint, example, self.shots, example.label))
        tokens = render_prompt(told, tokenizer).tokens
        if len(tokens) > self.longest:
            raise InputError(f"{len(tokens)} tokens of the prompt with the hint are more than {self.longest}")
        return Request(key, tokens, messages=told.messages, tools=told.tools)


def make_prompter(generation: GenerationSettings, max_tokens: int) -> Prompter:
    """Read the templates that a job names. Raises InputError for those that cannot be."""
    return Prompter(
        load_template(generation.template) if generation.template else None,
        load_template(generation.hint_template) if generation.keep == "rationalize" else None,
        read_shots(generation.shots) if generation.shots else (),
        max_tokens - generation.max_new_tokens,
    )


def prompting_spec(generation: GenerationSettings, prompter: Prompter) -> PromptingSpec | None:
    """What of it determines the content of a store; None where examples are asked as they are and all is kept."""
    if not prompter.template and generation.keep == "all" and not generation.stop:
        return None
    return PromptingSpec(
        template=prompter.template.name if prompter.template else "",
        template_digest=prompter.template.digest if prompter.template else "",
        shots_digest=digest([asdict(shot) for shot in prompter.shots]) if prompter.shots else "",
        hint_digest=prompter.hint.digest if prompter.hint else "",
        keep=generation.keep,
        stop=generation.stop,
        context=generation.context,
    )
