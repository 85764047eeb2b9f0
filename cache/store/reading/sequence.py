"""RecordSequence: stored examples as a Python sequence. What one store and several stores have in common."""

import operator
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from cache.errors import ExampleIndexError, InputError
from cache.examples.example import Example, TokenizedExample
from cache.rows.record import Record, Window
from cache.rows.spec import StoreSpec
from cache.storage.base import Storage
from cache.store.reading.blocks import BLOCK_TOKENS, token_blocks

# Numbers of examples as users give them. Negative ones count from the end.
Indices: TypeAlias = Sequence[int] | slice | npt.NDArray[np.integer[Any]]


class RecordSequence(ABC):
    """A sequence of Records. Subclasses give the primitives, and this class everything that follows from them.

    `s[3]` and `s[-1]` give a Record; `s[0:3]`, `s[[1, 2]]` and a numpy array of integers give a list. `for record in s`
    and `batches` read blocks of neighbours. `read`, `window` and `windows` give tokens and targets without the texts,
    `texts` gives the texts without the rows.

    spec: of all examples. storage: where they are, for messages.
    """

    spec: StoreSpec
    storage: Storage | str

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def tokens(self) -> npt.NDArray[np.uint32]:
        """Number of tokens of each example, uint32 [examples]."""

    @property
    @abstractmethod
    def rows(self) -> npt.NDArray[np.uint32]:
        """Number of tokens with a target of each example, uint32 [examples]."""

    @abstractmethod
    def has_origin(self, kinds: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Whether each example is of one of the kinds, such as "scored" or "generated"; bool [examples]."""

    @abstractmethod
    def key(self, i: int) -> str:
        """Key of an example, 32 hexadecimal digits."""

    @abstractmethod
    def windows(self, requests: Sequence[tuple[int, int, int | None]]) -> list[Window]:
        """Tokens start:stop of example i for each (i, start, stop), in the requested order."""

    @abstractmethod
    def _described(self, examples: Sequence[int]) -> list[tuple[str, str, Example]]:
        """Key, origin and texts of each of these examples, in the requested order. examples: checked indices."""

    @overload
    def __getitem__(self, i: int | np.integer[Any]) -> Record: ...
    @overload
    def __getitem__(self, i: Indices) -> list[Record]: ...
    def __getitem__(self, i: int | np.integer[Any] | Indices) -> Record | list[Record]:
        """The record at an index, or the records at a slice or at a sequence of indices, in the requested order.

        Negative indices count from the end. Raises ExampleIndexError, which is an IndexError, if there is no such
        example, TypeError if an index is no integer.
        """
        if isinstance(i, slice | list | tuple | range) or (isinstance(i, np.ndarray) and i.ndim):
            return self._records(self._indices(i))
        return self._records([self._index(i)])[0]

    def __iter__(self) -> Iterator[Record]:
        for batch in self.batches():
            yield from batch

    @overload
    def batches(
        self, examples: Indices | None = None, tokens: int = BLOCK_TOKENS, *, texts: Literal[True] = True
    ) -> Iterator[list[Record]]: ...
    @overload
    def batches(
        self, examples: Indices | None = None, tokens: int = BLOCK_TOKENS, *, texts: Literal[False]
    ) -> Iterator[list[Window]]: ...
    def batches(
        self, examples: Indices | None = None, tokens: int = BLOCK_TOKENS, *, texts: bool = True
    ) -> Iterator[list[Record]] | Iterator[list[Window]]:
        """Yield the examples in the requested order, some at a time: at most `tokens` tokens, or one longer example.

        examples: their indices; default: all, in the order of the store. texts: give Records; without, Windows, which
        takes less time. Neighbours are decoded together and a chunk of texts once a batch, so this is the fast way
        through a store. The arrays of a batch are views of runs of neighbours: copy an array to keep it alone.
        Raises InputError if `tokens` is below 1, ExampleIndexError if there is no such example.
        """
        if tokens < 1:
            raise InputError(f"tokens = {tokens}: a batch needs at least 1; give 1 or more")
        indices = np.arange(len(self)) if examples is None else np.asarray(self._indices(examples), np.int64)
        blocks = (indices[each.start : each.stop].tolist() for each in token_blocks(self.tokens[indices], tokens))
        return map(self._records, blocks) if texts else map(self._read, blocks)

    def window(self, i: int, start: int = 0, stop: int | None = None) -> Window:
        """Tokens start:stop of an example, without its texts. The rest of the example is not read."""
        return self.windows([(i, start, stop)])[0]

    def read(self, examples: Indices) -> list[Window]:
        """All tokens of each of the examples, in the requested order."""
        return self._read(self._indices(examples))

    def texts(self, examples: Indices) -> list[Example]:
        """The texts of each of the examples, in the requested order. No rows are read."""
        return [example for _, _, example in self._described(self._indices(examples))]

    def _read(self, examples: Sequence[int]) -> list[Window]:
        return self.windows([(i, 0, None) for i in examples])

    def _records(self, examples: Sequence[int]) -> list[Record]:
        """The records at checked indices, in the requested order."""
        return [
            Record(
                key,
                TokenizedExample(example, window.tokens, window.segments, origin),
                window.targets,
                window.token_logprobs,
            )
            for (key, origin, example), window in zip(self._described(examples), self._read(examples), strict=True)
        ]

    def _indices(self, examples: Indices) -> Sequence[int]:
        """Indices from 0 on. Raises ExampleIndexError if one is out of range, TypeError if one is no integer."""
        if isinstance(examples, slice):
            return range(*examples.indices(len(self)))
        if not isinstance(examples, np.ndarray):
            return [self._index(i) for i in examples]
        if examples.ndim != 1 or (examples.size and examples.dtype.kind not in "iu"):
            raise TypeError(
                f"an array of indices must be integers [n], not {examples.dtype} {list(examples.shape)}; turn a mask "
                "into indices with np.flatnonzero"
            )
        return [self._index(i) for i in examples.tolist()]

    def _index(self, i: Any) -> int:
        """An index from 0 on."""
        if type(i) is int and 0 <= i < len(self):  # most are, and every read of a batch asks
            return i
        if isinstance(i, bool | np.bool_):
            raise TypeError("an index of a store must be an integer, not a bool; turn a mask into indices first")
        try:
            number = operator.index(i)
        except TypeError:
            raise TypeError(
                f"an index of a store must be an integer, a slice or a sequence of integers, not {type(i).__name__}"
            ) from None
        if not -len(self) <= number < len(self):
            raise ExampleIndexError(f"{self.storage}: no example {number}; it has {len(self)}")
        return number + len(self) if number < 0 else number
