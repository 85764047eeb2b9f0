"""Settings of the responses that a teacher writes."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cache.json_documents import canonical_json
from cache.rows.spec import SamplingSpec
from cache.settings import PathText, Settings
from teacher_serving.asking.json_schemas import read_json_schema
from teacher_serving.asking.prompt_templates import resolve_template
from teacher_serving.asking.selection import KeepPolicy

# The name of a built-in template, or the path of a .jinja file.
TemplateName = Annotated[str, PathText(resolve_template)]


class GenerationSettings(Settings):
    """Responses that the teacher writes itself, with the targets of every token of them."""

    samples: int = Field(1, ge=1, description="responses for each prompt")
    examples: int | None = Field(None, ge=1, description="only for the first so many examples; all if not given")
    temperature: float = Field(1.0, ge=0, description="of sampling; 0 is greedy")
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus of sampling")
    max_new_tokens: int = Field(256, ge=1, description="tokens of a response at most")
    seed: int = Field(0, ge=0, description="seed of sampling, with the key of each example")
    answer_marker: str = Field("", description='text between the rationale and the label, such as "Answer:"')
    stop: str = Field("", description='text at the start of a line from which a response is cut, such as "Q:"')
    template: TemplateName | None = Field(
        None, description="how the teacher is asked: a built-in template, or a .jinja file"
    )
    shots: Path | None = Field(None, description="worked examples for the template, JSON Lines")
    context: Literal["bare", "same"] = Field(
        "bare", description="prompt of the records: the example's own, or the one that the template made of it"
    )
    keep: KeepPolicy = Field(
        "all", description="all responses, those whose label agrees with the example's, or ask again"
    )
    json_schema: Path | None = Field(
        None, description="file with a JSON schema that every response follows, where the engine can guide its decoding"
    )
    hint_template: TemplateName = Field("hint", description='how the teacher is asked again, with keep = "rationalize"')

    def unused_keys(self) -> dict[str, str]:
        unused = {}
        if self.temperature == 0:
            greedy = "temperature = 0 always takes the most likely token"
            unused = dict.fromkeys(("top_p", "seed"), greedy) | ({"samples": greedy} if self.samples > 1 else {})
        if self.template is None:
            unused["context"] = "without a 'template' both prompts are the same"
        if self.keep != "rationalize":
            unused["hint_template"] = 'only keep = "rationalize" asks again'
        return unused

    @model_validator(mode="after")
    def _labels_need_a_marker(self) -> Self:
        if self.template and not self.answer_marker:
            raise ValueError('a template needs the answer_marker that it asks for; the built-in ones ask for "Answer:"')
        if self.shots and not self.template:
            raise ValueError("shots are shown by a template; name one")
        return self

    @property
    def sampling(self) -> SamplingSpec:
        """How responses are drawn, as a store keeps it. Raises InputError for a schema that cannot be read."""
        return SamplingSpec(
            self.samples,
            self.temperature,
            self.top_p,
            self.max_new_tokens,
            self.seed,
            self.answer_marker,
            canonical_json(read_json_schema(self.json_schema)) if self.json_schema else "",
        )
