"""Examples whose texts fulfil a condition. Only texts are read, never rows."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cache.errors import InputError
from cache.examples.example import ORIGINS, Example, Segment

# Texts that are in memory at a time.
BLOCK_EXAMPLES = 1024
MAX_LISTED = 20
_ABSENT = object()


class Texts(Protocol):
    """Stored examples, as far as a selection reads them."""

    def texts(self, examples: Sequence[int]) -> list[Example]:
        """The texts of each of the examples, in the requested order."""
        ...


def select_where(
    store: Texts, candidates: npt.NDArray[np.int64], where: Callable[[Example], object]
) -> npt.NDArray[np.int64]:
    """The candidates for which `where` is true, in their order, int64 [selected]."""
    matches = [bool(where(example)) for example in _examples(store, candidates)]
    return np.asarray(candidates[np.array(matches, bool)])


def select_metadata(
    store: Texts, candidates: npt.NDArray[np.int64], wanted: Mapping[str, Any], name: str
) -> npt.NDArray[np.int64]:
    """The candidates whose metadata have these values, in their order, int64 [selected].

    Raises InputError as has_metadata does.
    """
    return np.asarray(candidates[has_metadata(_examples(store, candidates), wanted, name)])


def has_metadata(examples: Iterable[Example], wanted: Mapping[str, Any], name: str) -> npt.NDArray[np.bool_]:
    """Whether the metadata of each example have these values, bool [examples].

    Values are compared as JSON: 1 and 1.0 are equal, 1 and true are not. Raises InputError, starting with `name`, if no
    example has one of the keys.
    """
    if not isinstance(wanted, Mapping):
        raise InputError(
            f"{name}: metadata = {wanted!r}: must be a dict of keys and values, such as {{'topic': 'sums'}}"
        )
    seen: set[str] = set()
    matches = []
    for example in examples:
        seen.update(example.metadata)
        matches.append(all(same_value(example.metadata.get(key, _ABSENT), value) for key, value in wanted.items()))
    missing = sorted(set(wanted) - seen)
    if missing and matches:
        raise InputError(f"{name}: no example has the metadata {missing[0]!r}; {_listed(sorted(seen))}")
    return np.array(matches, bool)


def same_value(one: Any, other: Any) -> bool:
    """Whether two values are the same in JSON."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same_value(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same_value, one, other))
    return bool(one == other)


def require_origins(kinds: Sequence[str], origins: Sequence[str], name: str) -> None:
    """Raise InputError, starting with `name`, for a kind that is neither one of ORIGINS nor of `origins`."""
    known = {*ORIGINS, *origins, *(origin.partition("/")[0] for origin in origins)}
    if unknown := [kind for kind in kinds if kind not in known]:
        listed = ", ".join(origins[:MAX_LISTED]) or "none"
        raise InputError(f"{name}: no example has the origin {unknown[0]!r}; there are {listed}")


def segment_bits(segments: str | int | Sequence[str | int]) -> int:
    """Names or numbers of segments as bits, as RecordSequence compares them. Raises InputError for an unknown one."""
    bits = 0
    for given in [segments] if isinstance(segments, str | int) else segments:
        try:
            bits |= 1 << int(Segment[given.upper()] if isinstance(given, str) else Segment(given))
        except (KeyError, ValueError):
            names = ", ".join(segment.name.lower() for segment in Segment)
            raise InputError(f"segments = {given!r}: unknown; give some of {names}") from None
    return bits


def _listed(keys: Sequence[str]) -> str:
    more = f", and {len(keys) - MAX_LISTED} more" if len(keys) > MAX_LISTED else ""
    return f"there are {', '.join(map(repr, keys[:MAX_LISTED]))}{more}" if keys else "there are none"


def _examples(store: Texts, candidates: npt.NDArray[np.int64]) -> Iterator[Example]:
    for start in range(0, len(candidates), BLOCK_EXAMPLES):
        yield from store.texts(candidates[start : start + BLOCK_EXAMPLES].tolist())
