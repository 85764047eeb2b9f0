"""Where the examples of a run come from: a store, or a file of examples. Sizes are known without reading any."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from cache.errors import InputError, SpecMismatchError, StoreError
from cache.example import Example, TokenizedExample
from cache.examples_file import read_examples
from cache.reader import LogitStore
from cache.record import Record, Window
from cache.rendering import Tokenizer, render, tokenizer_digest
from cache.targets import empty_targets
from student.config import DataSettings, TrainSettings
from student.data import label_rows
from student.tokenizer import learn_tokenizer, load_tokenizer


class ExampleSource(Protocol):
    """Examples whose sizes are known without reading them.

    tokens, rows: int64 [examples], all tokens of each and rows that carry a loss. left_out: examples that do not fit.
    on_prompt: rows of the prompt carry one too.
    """

    tokens: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    left_out: int
    on_prompt: bool

    def __len__(self) -> int: ...
    def read(self, examples: Sequence[int]) -> list[Window]:
        """All tokens of each of the examples."""
        ...


class StoreSource:
    """The examples of a store's snapshot that a run asks for."""

    def __init__(self, store: LogitStore, settings: DataSettings, on_prompt: bool = False) -> None:
        wanted = np.flatnonzero(store.has_origin(settings.origins))
        self.on_prompt = on_prompt or store.spec.asked == "all"
        rows = store.rows if store.spec.targets.most_entries else _spoken_rows(store)
        fits = (store.tokens[wanted] <= settings.max_tokens) & (rows[wanted] > 0)
        self._indices = wanted[fits]
        self.left_out = len(wanted) - len(self._indices)
        self.store = store
        if not len(self._indices):
            raise StoreError(f"{store.storage}: no example with origin {' or '.join(sorted(settings.origins))} fits")
        self.tokens = store.tokens[self._indices].astype(np.int64)
        self.rows = self.tokens - 1 if on_prompt else rows[self._indices].astype(np.int64)

    def __len__(self) -> int:
        return len(self._indices)

    def read(self, examples: Sequence[int]) -> list[Window]:
        return self.store.read(self._indices[list(examples)].tolist())

    def record(self, i: int) -> Record:
        """An example with its texts."""
        return self.store[int(self._indices[i])]


class FileSource:
    """Examples with their responses as written; no teacher, so hard labels only."""

    def __init__(
        self, examples: Sequence[Example], tokenizer: Tokenizer, settings: DataSettings, on_prompt: bool = False
    ) -> None:
        self.on_prompt = on_prompt
        rendered = [render(e, tokenizer) for e in examples if e.rationale + e.response or e.is_trace]
        self._rendered = [r for r in rendered if len(r.tokens) <= settings.max_tokens and label_rows(r.segments).size]
        self.left_out = len(examples) - len(self._rendered)
        if not self._rendered:
            raise InputError(f"examples file {settings.examples}: no example has a response that fits max_tokens")
        self.tokens = np.array([len(r.tokens) for r in self._rendered])
        self.rows = np.array([label_rows(r.segments, on_prompt).size for r in self._rendered])

    def __len__(self) -> int:
        return len(self._rendered)

    def read(self, examples: Sequence[int]) -> list[Window]:
        return [self._window(self._rendered[i]) for i in examples]

    @staticmethod
    def _window(example: TokenizedExample) -> Window:
        n = len(example.tokens)
        return Window(example.tokens, example.segments, empty_targets(n), np.full(n, np.nan, np.float32))


def _spoken_rows(store: LogitStore) -> npt.NDArray[np.int64]:
    """Rows before the assistant's tokens, int64 [examples], of a store of texts alone: its index counts none."""
    counts = [
        label_rows(window.segments).size
        for start in range(0, len(store), 256)
        for window in store.read(range(start, min(start + 256, len(store))))
    ]
    return np.array(counts, np.int64)


def require_exact_targets(store: LogitStore) -> None:
    """Raise StoreError where a store has nothing that a divergence from the teacher can be taken to, without bias."""
    targets = store.spec.targets
    if targets.has_sampled or targets.most_entries == 0:
        held = f"targets of mode {targets.mode!r}" if targets.has_sampled else "texts without targets"
        raise StoreError(
            f"{store.storage} holds {held}, and the divergence with a tail bucket needs exact entries alone; "
            'capture topk or nucleus targets, or train with loss.objective = "hard_label"'
        )


def open_tokenizer(settings: TrainSettings) -> tuple[PreTrainedTokenizerBase, int]:
    """The tokenizer, and the number of logits that a student needs. A store's must be the one it was captured with."""
    if settings.data.store is not None:
        spec = LogitStore.open(str(settings.data.store), settings.data.snapshot).spec
        path = settings.tokenizer.path or spec.teacher
        tokenizer = load_tokenizer(path)
        if tokenizer_digest(tokenizer) != spec.tokenizer:
            raise SpecMismatchError(
                f"store {settings.data.store} was captured with another tokenizer than {path!r} has; "
                "set tokenizer.path to the teacher's"
            )
        return tokenizer, spec.vocab_size
    if settings.tokenizer.path:
        tokenizer = load_tokenizer(settings.tokenizer.path)
    else:
        assert settings.data.examples is not None and settings.tokenizer.vocab_size is not None
        tokenizer = learn_tokenizer(read_examples(settings.data.examples), settings.tokenizer.vocab_size)
    return tokenizer, len(tokenizer)


def open_source(settings: TrainSettings) -> tuple[StoreSource | FileSource, PreTrainedTokenizerBase, int]:
    """The examples, the tokenizer, and the number of logits that the student needs."""
    tokenizer, vocab_size = open_tokenizer(settings)
    data, on_prompt = settings.data, settings.loss.on_prompt
    if data.store is not None:
        store = LogitStore.open(str(data.store), data.snapshot)
        if settings.loss.objective != "hard_label":
            require_exact_targets(store)
        return StoreSource(store, data, on_prompt), tokenizer, vocab_size
    assert data.examples is not None
    return FileSource(read_examples(data.examples), tokenizer, data, on_prompt), tokenizer, vocab_size
