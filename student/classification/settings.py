"""Settings of classes: their names, where the teacher names them, and what a student reads."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from cache.settings import Settings


def default_variants(name: str) -> tuple[str, ...]:
    """How a teacher may write the name of a class: as it is and capitalised, with and without a space before it."""
    spellings = dict.fromkeys([name, name[:1].upper() + name[1:]])
    return tuple(space + word for space in ("", " ") for word in spellings)


def _with_variants(value: Any) -> Any:
    if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        if repeated := [name for i, name in enumerate(value) if name in value[:i]]:
            raise ValueError(f"class {repeated[0]!r} is named twice")
        return {name: default_variants(name) for name in value}
    return value


Variants = Annotated[tuple[str, ...], Field(min_length=1)]


class ClassSettings(Settings):
    """Classes, where the teacher names them, and what a student reads.

    labels: class name -> texts as the teacher would write them at the answer, or a list of names (default_variants).
        In order of grade, if there is one: metrics such as QWK count the steps between classes.
    at: "label", the first token of the LABEL segment, which a job with an answer marker sets; "response", the first
        token of the (last) response.
    fields: keys of the metadata whose texts a student reads in place of turns, such as ["question", "answer"]. They are
        segments: a separator is between them, and where a text is too long, the longest segment is cut.
    hard_labels: what hard-label terms learn, the label of each example or the teacher's most probable class.
    """

    labels: Annotated[dict[str, Variants], BeforeValidator(_with_variants), Field(min_length=2)]
    at: Literal["label", "response"] = "response"
    input: Literal["last_turn", "all_turns"] = Field(
        "last_turn", description="turns of the prompt that a student reads"
    )
    fields: tuple[str, ...] = Field((), description="keys of the metadata that a student reads in place of turns")
    max_tokens: int = Field(256, ge=1, description="longer texts are cut on the right, and counted")
    hard_labels: Literal["label", "teacher"] = Field("label", description="what hard-label terms learn")
    min_covered: float = Field(
        0.0, ge=0, lt=1, description="minimum probability of all labels together; examples with less are left out"
    )

    def unused_keys(self) -> dict[str, str]:
        return {"input": "'fields' names what a student reads"} if self.fields else {}
