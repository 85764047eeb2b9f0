"""Held-out examples of an evaluation, from a store or a file, in the tokens of any model."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cache.examples.example import Example, Segment
from cache.examples.files.jsonl import read_examples
from cache.examples.tokenizers import decode, tokenizer_digest
from cache.rendering.prompt_form import DEFAULT_FORM, PromptForm
from cache.rendering.render import prompt_tokens
from cache.store.logit_store import LogitStore
from student.data.settings import DataSettings
from student.data.sources import FileSource, StoreSource
from student.losses.settings import LossSettings
from student.tokenizers.cross_tokenizer_store import CrossTokenizerStore

# Longer than any example: an evaluation leaves none out for its length.
ANY_LENGTH = 1 << 31
HARD_LABELS = LossSettings(objective="hard_label")

Tokens = npt.NDArray[np.uint32]


class Prompt(NamedTuple):
    """An example, and the tokens of its prompt, uint32 [n]."""

    example: Example
    tokens: Tokens


@dataclass(frozen=True, slots=True)
class HeldoutExamples:
    """Where held-out examples come from: a store, or a JSON Lines file, which has no teacher.

    origins: of a store, which responses the losses are of, and whose prompts are answered.
    """

    store: LogitStore | None = None
    path: str | None = None
    origins: tuple[str, ...] = ("scored",)

    @property
    def name(self) -> str:
        """The store or the file, for messages."""
        return str(self.store.storage if self.store is not None else self.path)

    def source(self, tokenizer: Any, form: PromptForm = DEFAULT_FORM) -> StoreSource | FileSource:
        """The examples in the tokens of a model with this tokenizer. Targets of another one are aligned by bytes.

        form: how the tokenizer renders texts, where they are not those of the store.
        Raises InputError or StoreError if the targets cannot be aligned, or no example has a response.
        """
        if self.store is None:
            data = DataSettings.model_validate({"examples": self.path, "max_tokens": ANY_LENGTH})
            return FileSource(read_examples(str(self.path)), tokenizer, data, HARD_LABELS, form)
        data = DataSettings.model_validate(
            {"store": str(self.store.storage), "origins": self.origins, "max_tokens": ANY_LENGTH}
        )
        if self.has_tokenizer(tokenizer):
            return StoreSource(self.store, data, HARD_LABELS)
        aligned = CrossTokenizerStore(self.store, self.store.load_tokenizer(), tokenizer, form=form)
        return StoreSource(aligned, data, HARD_LABELS)

    @property
    def has_responses(self) -> bool:
        """Whether any example has a response, so that losses can be computed. A store always has one."""
        return self.store is not None or any(example.has_response for example in read_examples(str(self.path)))

    def has_tokenizer(self, tokenizer: Any) -> bool:
        """Whether the store was captured with this tokenizer. True for a file, which is rendered with any."""
        return self.store is None or tokenizer_digest(tokenizer) == self.store.spec.tokenizer

    def prompts(self, count: int, tokenizer: Any, form: PromptForm = DEFAULT_FORM) -> list[Prompt]:
        """The first `count` different prompts. Those of a store with this tokenizer have the tokens of the store."""
        found: dict[bytes, Prompt] = {}
        for prompt in self._all_prompts(tokenizer, form):
            if len(found) == count:
                break
            found.setdefault(prompt.tokens.tobytes(), prompt)
        return list(found.values())

    def _all_prompts(self, tokenizer: Any, form: PromptForm) -> Iterator[Prompt]:
        if self.store is None:
            for example in read_examples(str(self.path)):
                yield Prompt(example, prompt_tokens(example, tokenizer, form))
            return
        own = self.has_tokenizer(tokenizer)
        for i in np.flatnonzero(self.store.has_origin(self.origins)):
            tokenized = self.store[int(i)].tokenized
            example = tokenized.example
            yield Prompt(
                example, tokenized.tokens[: tokenized.prompt_length] if own else prompt_tokens(example, tokenizer, form)
            )


def assistant_bytes(source: StoreSource | FileSource, tokenizer: Any, block: int = 256) -> int:
    """Number of UTF-8 bytes of all that the assistant says in the examples, without special tokens.

    0 if a part of it is unknown to the tokenizer: its bytes are lost, and the loss of an unknown token is not theirs.
    """
    unknown = tokenizer.unk_token_id if tokenizer.unk_token_id != tokenizer.eos_token_id else None
    total = 0
    for start in range(0, len(source), block):
        for window in source.read(range(start, min(start + block, len(source)))):
            spoken = window.tokens[window.segments != Segment.PROMPT]
            if unknown is not None and (spoken == unknown).any():
                return 0
            total += len(decode(spoken, tokenizer).encode())
    return total
