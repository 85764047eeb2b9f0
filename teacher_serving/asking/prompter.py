"""Prompts for a teacher from the templates of a job, and their description in the spec of a store."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from cache.errors import InputError
from cache.examples.example import Example
from cache.examples.tokenizers import Tokenizer
from cache.json_documents import digest
from cache.rendering.prompt_form import DEFAULT_FORM, PromptForm
from cache.rendering.render import render_prompt
from cache.rows.spec import PromptingSpec
from teacher_serving.asking.prompt_templates import PromptTemplate, Shot, fill_template, load_template, read_shots
from teacher_serving.asking.settings import GenerationSettings
from teacher_serving.teacher import Request


@dataclass(frozen=True, slots=True)
class Prompter:
    """Templates of a job.

    template: None if the prompts of the examples are used unchanged. hint: template of the prompt that contains the
    label, or None. max_prompt_tokens: longest prompt that leaves room for a response. form: how prompts are rendered.
    """

    template: PromptTemplate | None
    hint: PromptTemplate | None
    shots: Sequence[Shot]
    max_prompt_tokens: int
    form: PromptForm = DEFAULT_FORM

    def apply_template(self, example: Example) -> Example:
        """Return the example with the messages for the teacher. Raises InputError if the template cannot be filled."""
        if self.template is None:
            return example
        return replace(example, messages=fill_template(self.template, example, self.shots))

    def hint_request(self, key: str, example: Example, tokenizer: Tokenizer) -> Request:
        """Return a request whose prompt contains the label. Raises InputError if it cannot be built or is too long."""
        if self.hint is None:
            raise InputError('no hint template; set generation.keep = "rationalize"')
        hinted = replace(example, messages=fill_template(self.hint, example, self.shots, example.label))
        tokens = render_prompt(hinted, tokenizer, self.form).tokens
        if len(tokens) > self.max_prompt_tokens:
            raise InputError(f"{len(tokens)} tokens of the prompt with the hint are more than {self.max_prompt_tokens}")
        return Request(key, tokens, messages=hinted.messages, tools=hinted.tools)


def make_prompter(generation: GenerationSettings, max_tokens: int, form: PromptForm = DEFAULT_FORM) -> Prompter:
    """Read the templates of a job. Raises InputError for a template that cannot be read."""
    return Prompter(
        load_template(generation.template) if generation.template else None,
        load_template(generation.hint_template) if generation.keep == "rationalize" else None,
        read_shots(generation.shots) if generation.shots else (),
        max_tokens - generation.max_new_tokens,
        form,
    )


def prompting_spec(generation: GenerationSettings, prompter: Prompter) -> PromptingSpec | None:
    """Return what determines the content of a store; None if prompts are unchanged and every response is kept."""
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
