"""Keys of examples, 16 bytes each: in the order of the examples, and sorted for the look-up."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

KEY_BYTES = 16
# Any 16 bytes; unlike text of numpy it keeps zeros at the end.
KEY = np.dtype(f"V{KEY_BYTES}")
# Where keys are fewer than one in so many, looking them up costs less than making the numbers.
FEW = 1024
Array = npt.NDArray[np.void]


class Keys:
    """E keys, void16 [E] each: `in_order` of the examples; `sorted`, of which example i has number `rank[i]`.

    The one is computed from the other when it is needed first.
    """

    def __init__(
        self,
        in_order: Array | None = None,
        sorted_keys: Array | None = None,
        rank: npt.NDArray[np.uint32] | None = None,
    ) -> None:
        self._in_order, self._sorted, self._rank = in_order, sorted_keys, rank

    def __len__(self) -> int:
        return len(self._in_order if self._in_order is not None else self._sorted)  # type: ignore[arg-type]

    @property
    def in_order(self) -> Array:
        """The key of each example."""
        if self._in_order is None:
            assert self._sorted is not None and self._rank is not None
            self._in_order = self._sorted[self._rank]
        return self._in_order

    @property
    def sorted(self) -> Array:
        """All keys, sorted by their bytes."""
        self._sort()
        assert self._sorted is not None
        return self._sorted

    @property
    def rank(self) -> npt.NDArray[np.uint32]:
        """Where the key of each example is among the sorted ones."""
        self._sort()
        assert self._rank is not None
        return self._rank

    def _sort(self) -> None:
        if self._rank is None:
            assert self._in_order is not None
            order = sorting_order(self._in_order)
            self._sorted = self._in_order[order]
            rank = np.empty(len(order), np.uint32)
            rank[order] = np.arange(len(order), dtype=np.uint32)
            self._rank = rank  # last of all: another thread that sees it takes both as complete

    def contains(self, keys: Array) -> npt.NDArray[np.bool_]:
        """Whether each of these keys is one of these; bool [keys]."""
        return is_among(keys, self.sorted)


def is_among(keys: Array, sorted_keys: Array) -> npt.NDArray[np.bool_]:
    """Whether each key is one of the sorted keys; bool [keys]."""
    if not len(sorted_keys) or not len(keys):
        return np.zeros(len(keys), bool)
    if len(keys) < len(sorted_keys) // FEW:
        place = np.minimum(np.searchsorted(sorted_keys, keys), len(sorted_keys) - 1)
        return np.asarray(sorted_keys[place] == keys)
    # Numbers are compared much faster than 16 bytes, once they are made. Random keys hardly ever share the first half.
    upper, wanted = _upper_halves(sorted_keys), _upper_halves(keys)
    place = np.minimum(np.searchsorted(upper, wanted), len(upper) - 1)
    found: npt.NDArray[np.bool_] = sorted_keys[place] == keys
    for i in np.flatnonzero(~found & (upper[place] == wanted)).tolist():
        end = int(np.searchsorted(upper, wanted[i], side="right"))
        found[i] = bool((sorted_keys[place[i] : end] == keys[i]).any())
    return found


def _upper_halves(keys: Array) -> npt.NDArray[np.uint64]:
    """The first 8 bytes of each key, as a number of the same order."""
    return np.ascontiguousarray(keys).view(">u8")[::2].astype(np.uint64)


def sorting_order(keys: Array) -> npt.NDArray[np.int64]:
    """The order that sorts keys by their bytes; equal keys keep their order."""
    halves = np.ascontiguousarray(keys).view(">u8").reshape(len(keys), 2).astype(np.uint64)
    return np.asarray(np.lexsort((halves[:, 1], halves[:, 0])))


def is_first(keys: Array) -> npt.NDArray[np.bool_]:
    """Whether no earlier key is the same; bool [keys]."""
    order = sorting_order(keys)
    first = np.ones(len(keys), bool)
    first[order[1:]] = keys[order[1:]] != keys[order[:-1]]
    return first


def keys_of_hex(keys: Iterable[str]) -> Array:
    """Keys of 32 hexadecimal digits as void16 [keys]."""
    return np.frombuffer(bytes.fromhex("".join(keys)), KEY)


def bytes_of_hex(values: Sequence[str], width: int) -> npt.NDArray[np.uint8]:
    """Hexadecimal strings as bytes, uint8 [values, width]."""
    return np.frombuffer(bytes.fromhex("".join(values)), np.uint8).reshape(len(values), width)
