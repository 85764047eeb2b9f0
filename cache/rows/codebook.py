"""Codebooks: which ids occur together, so that likely ids get small codes.

The first entry of a row, the likeliest id, predicts the others best. For every id that was seen as first entry, a
codebook contains the list of ids that occurred with it, most frequent first. The position of an id in that list is its
code. Any codebook is correct; a good one makes a store smaller.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from cache.errors import InputError

LIST_LENGTH = 256
Value = TypeVar("Value")


class _LazyValue(Generic[Value]):
    """A property that is computed once.

    functools.cached_property has a lock before Python 3.12: in the child of a fork, nobody would release it if a thread
    of the parent had it.
    """

    def __init__(self, compute: "Callable[[Any], Value]") -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __get__(self, codebook: Any, owner: type | None = None) -> Value:
        value = codebook.__dict__[self._compute.__name__] = self._compute(codebook)
        return value


@dataclass(frozen=True)
class Codebook:
    """Arrays of ids are uint16 if the vocabulary fits, otherwise uint32.

    order: [vocabulary], all ids, most frequent first. table: [lists, width], ids; the first list is the head of
    `order`, for contexts that were never seen. list_of: uint32 [vocabulary], the list of each id as context.
    by_token: the context of a row is the token that it follows, not its first entry. Rows of draws need this, because
    they have no order and so no first entry.
    """

    order: npt.NDArray[Any]
    table: npt.NDArray[Any]
    list_of: npt.NDArray[np.uint32]
    by_token: bool = False

    @_LazyValue
    def is_plain(self) -> bool:
        """Whether codes are ids."""
        return self.table.shape[1] == 0 and bool((self.order == np.arange(len(self.order))).all())

    @property
    def max_codes(self) -> int:
        """Codes are below this."""
        return len(self.order) + int(self.table.shape[1])

    @_LazyValue
    def rank_of_id(self) -> npt.NDArray[np.int32]:
        """Rank of each id in `order`, int32 [vocabulary]."""
        rank = np.empty(len(self.order), np.int32)
        rank[self.order] = np.arange(len(self.order), dtype=np.int32)
        return rank

    @_LazyValue
    def digest(self) -> str:
        """Hash of the content, 32 hexadecimal digits."""
        state = hashlib.sha256(f"codebook:{self.table.shape}:{self.by_token}:".encode())
        for array in (self.order, self.table, self.list_of):
            state.update(np.ascontiguousarray(array, "<u4").tobytes())
        return state.hexdigest()[:32]

    def validate(self) -> None:
        """Raise InputError unless each list contains an id at most once, and the order contains every id once."""
        vocab_size = len(self.order)
        if not np.array_equal(np.sort(self.order), np.arange(vocab_size)):
            raise InputError("codebook: the order must contain every id of the vocabulary once")
        if self.table.ndim != 2 or not len(self.table) or self.table.shape[1] > vocab_size:
            raise InputError(
                f"codebook: the table must be [lists, width up to {vocab_size}], not {list(self.table.shape)}"
            )
        if len(self.list_of) != vocab_size or int(self.list_of.max()) >= len(self.table):
            raise InputError("codebook: the list of every id must be one of the table")
        ids = np.sort(self.table, axis=1).astype(np.int64)
        if ids.size and (int(ids.max()) >= vocab_size or (np.diff(ids) == 0).any()):
            raise InputError("codebook: a list contains an id twice, or one outside the vocabulary")


def plain_codebook(vocab_size: int) -> Codebook:
    """The codebook whose codes are the ids themselves."""
    dtype = id_dtype(vocab_size)
    return Codebook(np.arange(vocab_size, dtype=dtype), np.zeros((1, 0), dtype), np.zeros(vocab_size, np.uint32))


def id_dtype(vocab_size: int) -> np.dtype[Any]:
    """The smallest type of ids and codes. Codes exceed the vocabulary by up to the length of a list."""
    return np.dtype(np.uint16 if vocab_size + LIST_LENGTH < np.iinfo(np.uint16).max else np.uint32)
