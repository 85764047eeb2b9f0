"""Settings of a student's tokenizer."""

from typing import Any, Literal

from pydantic import Field

from cache.settings import ModelPath, Settings

Algorithm = Literal["byte_bpe", "wordpiece"]


class TokenizerSettings(Settings):
    """The tokenizer: taken from a path (by default the store's teacher), or learned from the examples."""

    path: ModelPath | None = Field(None, description="folder or hub name; the teacher's if not given")
    trust_remote_code: bool = Field(False, description="run Python code that this folder contains")
    vocab_size: int | None = Field(None, ge=300, description="learn a tokenizer of this size")
    algorithm: Algorithm = Field(
        "byte_bpe",
        description="what is learned; wordpiece has words in lower case only, for small classifiers",
    )
    chat_template_kwargs: dict[str, Any] = Field(
        default_factory=dict,
        description="variables of the chat template, where the student renders texts itself: with data.examples, or "
        'data.align = "cross_tokenizer"',
    )

    def unused_keys(self) -> dict[str, str]:
        if self.path is None:
            return {"trust_remote_code": "it is about the folder of 'path', and there is none"}
        return dict.fromkeys(("vocab_size", "algorithm"), "'path' names a tokenizer, so none is learned")
