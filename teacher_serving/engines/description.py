"""TeacherDescription: what is known about a teacher before its weights are loaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.errors import SpecMismatchError
from cache.examples.tokenizers import Tokenizer, load_tokenizer, tokenizer_digest
from cache.lazy_value import lazy_value
from cache.rendering.prompt_form import DEFAULT_FORM, PromptForm
from cache.rows.spec import StoreSpec
from teacher_serving.asking.prompter import Prompter


@dataclass(frozen=True)
class TeacherDescription:
    """The spec of a capture, and the location of the teacher's files.

    folder: the model's files; None if a service runs the model. tokenizer_source: folder or hub name of the tokenizer.
    prompter: the templates of a job that generates responses; otherwise None.
    form: how prompts are rendered.

    A pickle of it contains the source of the tokenizer, not the tokenizer: Ray keeps large arguments of an actor in its
    object store, and an actor cannot be restarted once they are lost there.
    """

    spec: StoreSpec
    folder: Path | None
    tokenizer_source: str
    trust_remote_code: bool
    prompter: Prompter | None
    form: PromptForm = DEFAULT_FORM

    @lazy_value
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, loaded at first use. Raises SpecMismatchError if it differs from the spec's."""
        tokenizer: Tokenizer = load_tokenizer(self.tokenizer_source, self.trust_remote_code)
        if tokenizer_digest(tokenizer) != self.spec.tokenizer:
            raise SpecMismatchError(
                f"tokenizer {self.tokenizer_source!r}: not the tokenizer that this capture was planned with; make the "
                "same files available on every node"
            )
        return tokenizer

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "tokenizer"}
