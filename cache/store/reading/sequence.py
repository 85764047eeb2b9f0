"""RecordSequence: stored examples as a Python sequence. What one store and several stores have in common."""

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from cache.errors import ExampleIndexError, InputError
from cache.examples.example import Example, TokenizedExample
from cache.rows.record import Record, Window
from cache.rows.spec import StoreSpec
from cache.storage.base import Storage
from cache.store.reading.blocks import BLOCK_TOKENS, token_blocks
from cache.store.reading.lookup import find_example
from cache.store.reading.requirements import MAX_BYTES, require_fits, require_library
from cache.store.reading.selection import require_origins, segment_bits, select_metadata, select_where
from cache.store.reading.tensors import make_tensors, padded_bytes, tensor_bytes

# Numbers of examples as users give them. Negative ones count from the end.
Indices: TypeAlias = Sequence[int] | slice | npt.NDArray[np.integer[Any]]


class RecordSequence(ABC):
    """A sequence of Records. Subclasses give the primitives, and this class everything that follows from them.

    `s[3]` and `s[-1]` give a Record; `s[0:3]`, `s[[1, 2]]` and an array of integers (numpy, torch, pandas) give a list.
    `for record in s` and `batches` read blocks of neighbours. `read`, `window` and `windows` give tokens and targets
    without the texts, `texts` gives the texts without the rows.

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

    @property
    @abstractmethod
    def keys(self) -> npt.NDArray[np.uint8]:
        """Key of each example as bytes, uint8 [examples, 16]."""

    @property
    @abstractmethod
    def origins(self) -> list[str]:
        """The origins that examples have, such as "scored" and "generated/0"."""

    @abstractmethod
    def load_tokenizer(self) -> Any:
        """Load the tokenizer with which the examples were captured (transformers.PreTrainedTokenizerBase)."""

    @abstractmethod
    def close(self) -> None:
        """Close all files. They are opened again if examples are read later."""

    @abstractmethod
    def windows(self, requests: Sequence[tuple[int, int, int | None]]) -> list[Window]:
        """Tokens start:stop of example i for each (i, start, stop), in the requested order."""

    @abstractmethod
    def _segment_bits(self, examples: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        """The segments of each of these examples, uint64: bit s is set if a token is of segment s. No rows are read."""

    @abstractmethod
    def _count_entries(self, examples: npt.NDArray[np.int64]) -> int:
        """Number of entries of all rows of these examples, estimated from the means of their units."""

    @abstractmethod
    def _described(self, examples: Sequence[int]) -> list[tuple[str, str, Example]]:
        """Key, origin and texts of each of these examples, in the requested order. examples: checked indices."""

    def key(self, i: int) -> str:
        """Key of an example, 32 hexadecimal digits."""
        return str(self.keys[self._index(i)].tobytes().hex())

    def find(self, key: str) -> int:
        """Number of the example with the id `key`, or, if there is none, of the one whose key starts with `key`.

        A search by anything but a whole key reads the texts of all examples. Raises StoreError unless there is exactly
        one example, with the first keys if several have the id.
        """
        return find_example(self, key, str(self.storage))

    @overload
    def __getitem__(self, i: int | np.integer[Any]) -> Record: ...
    @overload
    def __getitem__(self, i: Indices) -> list[Record]: ...
    def __getitem__(self, i: int | np.integer[Any] | Indices) -> Record | list[Record]:
        """The record at an index, or the records at a slice or at a sequence of indices, in the requested order.

        Negative indices count from the end. Raises ExampleIndexError, which is an IndexError, if there is no such
        example, TypeError if an index is no integer.
        """
        given: Any = i
        if isinstance(i, slice | list | tuple | range) or getattr(given, "ndim", 0) > 0:  # tensors, Series
            return self._records(self._indices(given))
        return self._records([self._index(i)])[0]

    def __iter__(self) -> Iterator[Record]:
        for batch in self.batches():
            yield from batch

    def __contains__(self, item: object) -> bool:
        raise TypeError("`in` would read and compare every example; look for an id or a key with find()")

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
        blocks = self._blocks(self.numbers(examples), tokens)
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

    def numbers(self, examples: Indices | None = None) -> npt.NDArray[np.int64]:
        """Indices of examples as numbers from 0 on, int64; None: all. Raises as `store[examples]` does."""
        return np.arange(len(self)) if examples is None else np.asarray(self._indices(examples), np.int64)

    def select(
        self,
        origins: str | Sequence[str] | None = None,
        segments: str | int | Sequence[str | int] | None = None,
        metadata: Mapping[str, Any] | None = None,
        where: Callable[[Example], object] | None = None,
        *,
        min_tokens: int = 0,
        max_tokens: int | None = None,
        min_rows: int = 0,
        max_rows: int | None = None,
    ) -> npt.NDArray[np.int64]:
        """Numbers of the examples that fulfil all conditions, in the order of the store, int64 [selected].

        origins: kinds such as "generated", or whole origins such as "generated/0". min_tokens to max_rows: inclusive
        bounds of the number of tokens, and of tokens with a target. These read nothing but the index.
        segments: names of segments of which an example has at least one token each; reads the segments of the parts.
        metadata: values that the example's metadata must have, equal in JSON. where: a function of the Example. Both
        read the texts of the examples that fulfil the other conditions, but no rows.
        Raises InputError for an unknown origin or segment, and for a key that no example's metadata have.
        """
        chosen = (self.tokens >= min_tokens) & (self.rows >= min_rows)
        chosen &= self.tokens <= (np.iinfo(np.uint32).max if max_tokens is None else max_tokens)
        chosen &= self.rows <= (np.iinfo(np.uint32).max if max_rows is None else max_rows)
        if origins is not None:
            kinds = [origins] if isinstance(origins, str) else list(origins)
            require_origins(kinds, self.origins, str(self.storage))
            chosen &= self.has_origin(kinds)
        numbers = np.flatnonzero(chosen)
        if segments is not None:
            wanted = np.uint64(segment_bits(segments))
            numbers = numbers[self._segment_bits(numbers) & wanted == wanted]
        if metadata:
            numbers = select_metadata(self, numbers, metadata, str(self.storage))
        return numbers if where is None else select_where(self, numbers, where)

    def columns(self) -> dict[str, str]:
        """Name and Arrow type of each column of `to_arrow` and `to_pandas`."""
        require_library("pyarrow", "columns")
        from cache.store.reading.tables import table_schema

        schema = table_schema(self.spec)
        return {field.name: str(field.type) for field in schema}

    def arrow_batches(self, examples: Indices | None = None, columns: Sequence[str] | None = None) -> Iterator[Any]:
        """The table of `to_arrow` in pieces: a pyarrow.Table for each block of at most BLOCK_TOKENS tokens."""
        require_library("pyarrow", "arrow_batches")
        from cache.store.reading import tables

        schema = tables.table_schema(self.spec, columns)

        def table(block: list[int]) -> Any:
            described = self._described(block) if tables.needs_texts(schema) else ()
            windows = self._read(block) if tables.needs_rows(schema) else ()
            return tables.make_table(schema, described, windows)

        return map(table, self._blocks(self.numbers(examples), BLOCK_TOKENS))

    def to_arrow(
        self, examples: Indices | None = None, columns: Sequence[str] | None = None, max_bytes: int = MAX_BYTES
    ) -> Any:
        """The examples (default: all) as a pyarrow.Table with a row each, as `export_parquet` writes it.

        columns: some of `columns()`; without columns of tokens or rows none are decoded. Raises InputError if the table
        would have more than `max_bytes`, or for an unknown column.
        """
        require_library("pyarrow", "to_arrow")
        from pyarrow import concat_tables

        from cache.store.reading.tables import array_bytes, table_schema

        schema, indices = table_schema(self.spec, columns), self.numbers(examples)
        tokens = int(self.tokens[indices].sum(dtype=np.int64))
        require_fits(array_bytes(schema, tokens, self._count_entries(indices)), max_bytes, len(indices))
        parts, size = [schema.empty_table()], 0
        for part in self.arrow_batches(indices, columns):
            parts.append(part)
            size += part.nbytes
            require_fits(size, max_bytes, len(indices))
        return concat_tables(parts)

    def to_pandas(
        self, examples: Indices | None = None, columns: Sequence[str] | None = None, max_bytes: int = MAX_BYTES
    ) -> Any:
        """The table of `to_arrow` as a pandas.DataFrame.

        Raises InputError as `to_arrow` does, and if pandas is not installed.
        """
        require_library("pandas", "to_pandas")
        return self.to_arrow(examples, columns, max_bytes).to_pandas()

    def to_torch(self, examples: Indices | None = None, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
        """The examples (default: all) as tensors: N tokens one after another, and the R rows with a target.

        tokens int64, segments uint8, token_logprobs float32 [N]; starts int64 [examples + 1]: example i has the tokens
        starts[i]:starts[i + 1]. rows int64 [R]: positions among the N tokens; labels int64 [R]: the tokens that follow
        them, -1 if none. ids int64, log_p float32 [R, K], padded with id 0 and -inf to the largest row.
        log_tail float32 [R]. If the spec has them: exact int64 [R], entropy float32 [R], log_normalizers float32
        [R, temperatures].
        Raises InputError if the tensors would have more than `max_bytes`, and if torch is not installed.
        """
        require_library("torch", "to_torch")
        indices = self.numbers(examples)
        tokens, rows = (int(each[indices].sum(dtype=np.int64)) for each in (self.tokens, self.rows))
        require_fits(tensor_bytes(tokens, rows, self._count_entries(indices)), max_bytes, len(indices))
        windows = [window for batch in self.batches(indices, texts=False) for window in batch]
        require_fits(padded_bytes(windows), max_bytes, len(indices))
        return make_tensors(windows)

    def _blocks(self, indices: npt.NDArray[np.int64], tokens: int) -> Iterator[list[int]]:
        """The indices in lists of at most so many tokens."""
        return (indices[each.start : each.stop].tolist() for each in token_blocks(self.tokens[indices], tokens))

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
        if isinstance(examples, str | bytes) or not isinstance(examples, Iterable):
            raise TypeError(f"examples = {examples!r}: give a list or an array of integers, or a slice, such as [0, 1]")
        if not isinstance(examples, np.ndarray):  # tensors and Series of pandas have tolist
            return [self._index(i) for i in (examples.tolist() if hasattr(examples, "tolist") else examples)]
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
