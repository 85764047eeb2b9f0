"""Sources of the examples of a run: stores, or a file of examples. Their sizes are known without reading them."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Protocol

import numpy as np
import numpy.typing as npt

from cache.errors import InputError, StoreError
from cache.examples.example import Example, Segment, TokenizedExample
from cache.examples.example_order import Shuffle, examples_at
from cache.examples.mixture_order import mixture_at, mixture_end, period_counts
from cache.examples.tokenizers import Tokenizer
from cache.rendering.prompt_form import DEFAULT_FORM, PromptForm
from cache.rendering.render import render
from cache.rows.record import Record, Window
from cache.rows.sparse_targets import empty_targets
from cache.rows.spec import StoreSpec
from cache.store.reading.selection import BLOCK_EXAMPLES, has_metadata, select_metadata
from student.data.settings import DataSettings, StepSize
from student.losses.registry import OBJECTIVES
from student.losses.settings import LossSettings
from student.losses.target_forms import TargetForm

WITHOUT_LOSS = "without a token that has a loss"
OTHER_METADATA = "other metadata than data.where"
ONE_EXAMPLE = StepSize(1)


def too_long(data: DataSettings) -> str:
    """Why an example of more than max_tokens tokens is left out."""
    return f"longer than data.max_tokens = {data.max_tokens:,}"


def describe_left_out(left_out: Mapping[str, int]) -> str:
    """Numbers of examples with the reason for each, in words; empty if there are none."""
    return ", ".join(f"{count:,} {reason}" for reason, count in left_out.items())


class Examples(Protocol):
    """Examples whose sizes are known without reading them.

    tokens: int64 [examples], tokens of each example. left_out: number of examples that are not among them, by reason.
    form: the form of their targets. shuffles: how far the examples are shuffled, for each store or file.
    """

    tokens: npt.NDArray[np.int64]
    left_out: Counter[str]
    form: TargetForm

    @property
    def shuffles(self) -> tuple[Shuffle, ...]: ...

    def __len__(self) -> int: ...
    def read(self, examples: Sequence[int]) -> list[Window]:
        """The windows of the examples, with all their tokens, in the requested order."""
        ...

    def texts(self, i: int) -> Example:
        """The text form of an example."""
        ...

    def all_texts(self) -> Iterator[Example]:
        """The text form of every example, in order. They are read in blocks."""
        ...

    def order(self, start: int, count: int, seed: int) -> npt.NDArray[np.int64]:
        """Examples at positions start..start + count of the endless stream, int64 [count]."""
        ...

    def window_end(self, position: int) -> int | None:
        """First position after those that are best read together with this one. None if that is no faster."""
        ...


class Store(Protocol):
    """A store, several averaged stores, or a store in the tokens of another tokenizer."""

    spec: StoreSpec

    @property
    def storage(self) -> object: ...
    @property
    def tokens(self) -> npt.NDArray[np.uint32]: ...
    @property
    def rows(self) -> npt.NDArray[np.uint32]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, i: int) -> Record: ...
    def has_origin(self, kinds: Sequence[str]) -> npt.NDArray[np.bool_]: ...
    def read(self, examples: Sequence[int]) -> list[Window]: ...
    def texts(self, examples: Sequence[int]) -> list[Example]: ...


class StoreSource:
    """The examples of a store's snapshot that a run uses: by origin and metadata, not too long, with a loss.

    With data.where the texts of all other candidates are read once.
    """

    def __init__(self, store: Store, data: DataSettings, loss: LossSettings, step: StepSize = ONE_EXAMPLE) -> None:
        """step: its size, on which the shuffled window depends."""
        require_prompt_targets(store, loss)
        candidates = np.flatnonzero(store.has_origin(data.origins))
        fits = store.tokens[candidates] <= data.max_tokens
        has_loss = max_loss_rows(store, loss)[candidates] > 0
        usable = candidates[fits & has_loss]
        self._indices = select_metadata(store, usable, data.where, str(store.storage)) if data.where else usable
        self.left_out = +Counter(
            {
                too_long(data): int(np.count_nonzero(~fits)),
                WITHOUT_LOSS: int(np.count_nonzero(fits & ~has_loss)),
                f"with {OTHER_METADATA}": len(usable) - len(self._indices),
            }
        )
        self.store = store
        self.form = TargetForm.of(store.spec.targets)
        if not len(self._indices):
            origins = " or ".join(sorted(data.origins))
            raise StoreError(
                f"{store.storage}: no example with origin {origins} fits ({describe_left_out(self.left_out) or 'none'})"
            )
        self.tokens = store.tokens[self._indices].astype(np.int64)
        self.shuffle = data.shuffle(self.tokens, step)
        self.shuffles = (self.shuffle,)

    def __len__(self) -> int:
        return len(self._indices)

    def read(self, examples: Sequence[int]) -> list[Window]:
        return self.store.read(self._indices[list(examples)].tolist())

    def record(self, i: int) -> Record:
        """An example with its texts and targets."""
        return self.store[int(self._indices[i])]

    def texts(self, i: int) -> Example:
        return self.store.texts([int(self._indices[i])])[0]

    def all_texts(self) -> Iterator[Example]:
        for start in range(0, len(self), BLOCK_EXAMPLES):
            yield from self.store.texts(self._indices[start : start + BLOCK_EXAMPLES].tolist())

    def order(self, start: int, count: int, seed: int) -> npt.NDArray[np.int64]:
        return examples_at(start, count, len(self), seed, self.shuffle)

    def window_end(self, position: int) -> int | None:
        return self.shuffle.window_end(position, len(self)) if self.shuffle.block > 1 else None


class FileSource:
    """Examples of a file, with their responses. There is no teacher, so only hard labels can be learned."""

    def __init__(
        self,
        examples: Sequence[Example],
        tokenizer: Tokenizer,
        data: DataSettings,
        loss: LossSettings,
        form: PromptForm = DEFAULT_FORM,
        step: StepSize = ONE_EXAMPLE,
    ) -> None:
        weights = np.max([loss.segments_of(term).by_segment for term in loss.all_terms], axis=0)
        self._rendered: list[TokenizedExample] = []
        self.left_out: Counter[str] = Counter()
        if data.where:
            fits = has_metadata(examples, data.where, f"examples file {data.examples}")
            self.left_out += Counter({f"with {OTHER_METADATA}": int(np.count_nonzero(~fits))})
            examples = [examples[i] for i in np.flatnonzero(fits)]
        for example in examples:
            rendered = render(example, tokenizer, form=form) if example.has_response else None
            if rendered is None:
                self.left_out["without a response"] += 1
            elif len(rendered.tokens) > data.max_tokens:
                self.left_out[too_long(data)] += 1
            elif not (weights[rendered.segments[1:]] > 0).any():
                self.left_out[WITHOUT_LOSS] += 1
            else:
                self._rendered.append(rendered)
        if not self._rendered:
            raise InputError(
                f"examples file {data.examples}: no example has a response that fits max_tokens "
                f"({describe_left_out(self.left_out) or 'the file has none'})"
            )
        self.tokens = np.array([len(r.tokens) for r in self._rendered])
        # As a store of these examples is shuffled, so that both give the same order.
        self.shuffle = data.shuffle(self.tokens, step)
        self.shuffles = (self.shuffle,)
        self.form = TargetForm("none")

    def __len__(self) -> int:
        return len(self._rendered)

    def read(self, examples: Sequence[int]) -> list[Window]:
        return [self._window(self._rendered[i]) for i in examples]

    def texts(self, i: int) -> Example:
        return self._rendered[i].example

    def all_texts(self) -> Iterator[Example]:
        return (rendered.example for rendered in self._rendered)

    def order(self, start: int, count: int, seed: int) -> npt.NDArray[np.int64]:
        return examples_at(start, count, len(self), seed, self.shuffle)

    def window_end(self, position: int) -> None:
        return None

    @staticmethod
    def _window(example: TokenizedExample) -> Window:
        n = len(example.tokens)
        return Window(example.tokens, example.segments, empty_targets(n), np.full(n, np.nan, np.float32))


class MixtureSource:
    """Several sources, drawn from by weight. The examples of each source follow those of the one before.

    The targets of all stores are of one kind. Files beside them have none, and only hard labels learn from these.
    """

    def __init__(self, sources: Sequence[StoreSource | FileSource], weights: Sequence[float]) -> None:
        stores = [source for source in sources if isinstance(source, StoreSource)]
        forms = {source.form for source in stores or sources}
        if len(forms) > 1:
            listed = "; ".join(f"{source.store.storage}: {source.store.spec.targets}" for source in stores)
            raise StoreError(f"a mixture needs targets of one kind, and these differ: {listed}")
        self.sources = tuple(sources)
        self._weights = tuple(weights)
        self._sizes = [len(source) for source in sources]
        self._starts = np.cumsum([0, *self._sizes])
        self.tokens = np.concatenate([source.tokens for source in sources])
        self.left_out = sum((source.left_out for source in sources), Counter[str]())
        (self.form,) = forms
        # Each source has its part of the window's tokens.
        tokens = period_counts(weights) * np.array([source.tokens.mean() for source in sources])
        self.shuffles = tuple(
            replace(source.shuffle, window=max(1, round(source.shuffle.window * share)))
            for source, share in zip(sources, tokens / tokens.sum(), strict=True)
        )

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, examples: Sequence[int]) -> list[Window]:
        requested = np.asarray(examples, np.int64)
        windows: list[Window | None] = [None] * len(requested)
        for number, source in enumerate(self.sources):
            own = np.flatnonzero((requested >= self._starts[number]) & (requested < self._starts[number + 1]))
            if len(own):
                read = source.read((requested[own] - self._starts[number]).tolist())
                for position, window in zip(own, read, strict=True):
                    windows[position] = window
        return windows  # type: ignore[return-value]

    def texts(self, i: int) -> Example:
        number = int(np.searchsorted(self._starts, i, side="right")) - 1
        return self.sources[number].texts(i - int(self._starts[number]))

    def all_texts(self) -> Iterator[Example]:
        return chain.from_iterable(source.all_texts() for source in self.sources)

    def order(self, start: int, count: int, seed: int) -> npt.NDArray[np.int64]:
        sources, examples = mixture_at(start, count, self._sizes, self._weights, seed, self.shuffles)
        return self._starts[sources] + examples

    def window_end(self, position: int) -> int | None:
        if all(shuffle.block == 1 for shuffle in self.shuffles):
            return None
        return mixture_end(position, self._sizes, self._weights, self.shuffles)


def max_loss_rows(store: Store, loss: LossSettings) -> npt.NDArray[np.int64]:
    """Upper bound of the number of rows with a loss of each example, int64 [examples]; 0 only if it has none."""
    learns_prompts = any(loss.segments_of(term).prompt > 0 for term in loss.all_terms)
    if not loss.needs_teacher and learns_prompts:
        return store.tokens.astype(np.int64) - 1
    return store.rows.astype(np.int64) if store.spec.targets.max_entries else _assistant_tokens(store)


def require_prompt_targets(store: Store, loss: LossSettings) -> None:
    """Raise StoreError if a term needs the teacher's distributions for prompts and the store has none."""
    for term in loss.all_terms:
        weight = loss.segments_of(term).prompt
        if OBJECTIVES[term.objective].needs_teacher and weight > 0 and store.spec.asked != "all":
            raise StoreError(
                f"{store.storage} has no targets for prompts, to which {term.objective} gives the weight {weight:g}; "
                'capture with targets.of = "all", or leave out loss.segments.prompt'
            )


def _assistant_tokens(store: Store) -> npt.NDArray[np.int64]:
    """Number of tokens of the assistant in each example, int64 [examples].

    Read from the examples: the index of a store of texts alone counts no rows.
    """
    counts = [
        int(np.count_nonzero(window.segments[1:] != Segment.PROMPT))
        for start in range(0, len(store), 256)
        for window in store.read(range(start, min(start + 256, len(store))))
    ]
    return np.array(counts, np.int64)
