"""Codebooks: which ids occur together, so that likely ids get small codes.

A row's context, the token that it follows or its first entry, predicts its entries. For every context that was seen, a
codebook contains the list of ids that occurred in it, most frequent first. The position of an id in that list is its
code. Any codebook is correct; a good one makes a store smaller.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import InputError
from cache.lazy_value import lazy_value

LIST_LENGTH = 1024


@dataclass(frozen=True)
class Codebook:
    """Arrays of ids are uint16 if the vocabulary fits, otherwise uint32.

    order: [vocabulary], all ids, most frequent first. listed: [listed ids], the lists, one after another; list_start:
    int64 [lists + 1], where each starts, and the end. A list has at most LIST_LENGTH ids. List 0 is empty: it is the
    list of contexts that were never seen. list_of: uint32 [vocabulary], the list of each id as context.
    by_token: the context of a row is the token that it follows, not its first entry. Rows of draws need this, because
    they have no order and so no first entry.
    """

    order: npt.NDArray[Any]
    listed: npt.NDArray[Any]
    list_start: npt.NDArray[np.int64]
    list_of: npt.NDArray[np.uint32]
    by_token: bool = False

    @lazy_value
    def is_plain(self) -> bool:
        """Whether codes are ids."""
        return len(self.listed) == 0 and bool((self.order == np.arange(len(self.order))).all())

    @lazy_value
    def max_codes(self) -> int:
        """Codes are below this."""
        return len(self.order) + int(np.diff(self.list_start).max(initial=0))

    @lazy_value
    def rank_of_id(self) -> npt.NDArray[np.int32]:
        """Rank of each id in `order`, int32 [vocabulary]."""
        rank = np.empty(len(self.order), np.int32)
        rank[self.order] = np.arange(len(self.order), dtype=np.int32)
        return rank

    @lazy_value
    def digest(self) -> str:
        """Hash of the content, 32 hexadecimal digits."""
        state = hashlib.sha256(f"codebook:{len(self.order)}:{len(self.listed)}:{self.by_token}:".encode())
        for array in (self.order, self.listed, self.list_start, self.list_of):
            state.update(np.ascontiguousarray(array, "<u4").tobytes())
        return state.hexdigest()[:32]

    def validate(self) -> None:
        """Raise InputError unless each list contains an id at most once, and the order contains every id once."""
        vocab_size = len(self.order)
        if not np.array_equal(np.sort(self.order), np.arange(vocab_size)):
            raise InputError("codebook: the order must contain every id of the vocabulary once")
        lengths = np.diff(self.list_start)
        if not len(lengths) or self.list_start[0] != 0 or self.list_start[-1] != len(self.listed):
            raise InputError(f"codebook: the lists must start at 0 and end at {len(self.listed)}")
        if (lengths < 0).any() or lengths[0] != 0 or int(lengths.max()) > min(LIST_LENGTH, vocab_size):
            raise InputError(f"codebook: list 0 must be empty, and none longer than {min(LIST_LENGTH, vocab_size)}")
        if len(self.list_of) != vocab_size or int(self.list_of.max(initial=0)) >= len(lengths):
            raise InputError(f"codebook: the list of every id must be one of the {len(lengths)}")
        if len(self.listed) and int(self.listed.max()) >= vocab_size:
            raise InputError(f"codebook: a list contains an id outside the vocabulary of {vocab_size}")
        pairs = np.repeat(np.arange(len(lengths)), lengths) * vocab_size + self.listed.astype(np.int64)
        pairs.sort()
        if (np.diff(pairs) == 0).any():
            raise InputError("codebook: a list contains an id twice")


def plain_codebook(vocab_size: int) -> Codebook:
    """The codebook whose codes are the ids themselves."""
    return listless_codebook(np.arange(vocab_size, dtype=id_dtype(vocab_size)))


def listless_codebook(order: npt.NDArray[Any]) -> Codebook:
    """A codebook without lists: the code of an id is its rank in `order`, which has the type of ids."""
    return Codebook(order, np.zeros(0, order.dtype), np.zeros(2, np.int64), np.zeros(len(order), np.uint32))


def id_dtype(vocab_size: int) -> np.dtype[Any]:
    """The smallest type of ids and codes. Codes exceed the vocabulary by up to the length of a list."""
    return np.dtype(np.uint16 if vocab_size + LIST_LENGTH < np.iinfo(np.uint16).max else np.uint32)
