"""StoreUnion: several stores as one sequence of examples, without a copy."""

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import InputError, SpecMismatchError
from cache.examples.example import Example
from cache.lazy_value import lazy_value
from cache.rows.record import Window
from cache.rows.spec import StoreSpec
from cache.rows.spec_fields import differences
from cache.store.reading.sequence import RecordSequence


class StoreUnion(RecordSequence):
    """The examples of the first store, then those of the second, and so on. See RecordSequence for what it offers.

    An example whose key an earlier store has is left out: the first one counts. doubles: number of these. stores: those
    that it reads. spec: what they have in common; of other fields, such as `teacher`, the values of all. It can be
    pickled, and shared between threads and across fork, as far as the stores can. Uses 16 bytes an example.
    """

    def __init__(self, stores: Sequence[RecordSequence]) -> None:
        """Raises InputError without stores, SpecMismatchError, with the field, unless their rows have the same form."""
        if not stores:
            raise InputError("a union of no stores; give at least one")
        for store in stores[1:]:
            _require_same_form(stores[0], store)
        self.stores = tuple(stores)
        self.storage = " + ".join(str(store.storage) for store in stores)
        self.spec = _common_spec([store.spec for store in stores])
        self._starts = np.cumsum([0, *map(len, stores)])
        keys = np.ascontiguousarray(np.concatenate([store.keys for store in stores]))
        first = np.unique(keys.view(f"V{keys.shape[1]}").ravel(), return_index=True)[1]
        self._places = np.sort(first)  # of each example among those of all stores
        self.doubles = len(keys) - len(first)

    def __len__(self) -> int:
        return len(self._places)

    def __repr__(self) -> str:
        return f"StoreUnion({len(self.stores)} stores, {len(self):,} examples, {self.doubles:,} doubles left out)"

    def __enter__(self) -> "StoreUnion":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all stores. They open their files again if they are read later."""
        for store in self.stores:
            store.close()

    @lazy_value
    def tokens(self) -> npt.NDArray[np.uint32]:
        return self._column([store.tokens for store in self.stores])

    @lazy_value
    def rows(self) -> npt.NDArray[np.uint32]:
        return self._column([store.rows for store in self.stores])

    @property
    def keys(self) -> npt.NDArray[np.uint8]:
        return self._column([store.keys for store in self.stores])

    @property
    def origins(self) -> list[str]:
        return list(dict.fromkeys(name for store in self.stores for name in store.origins))

    def has_origin(self, kinds: Sequence[str]) -> npt.NDArray[np.bool_]:
        return self._column([store.has_origin(kinds) for store in self.stores])

    def load_tokenizer(self) -> Any:
        """Load the tokenizer with which the stores were captured, from the first of them."""
        return self.stores[0].load_tokenizer()

    def key(self, i: int) -> str:
        store, number = self.source(i)
        return self.stores[store].key(number)

    def source(self, i: int) -> tuple[int, int]:
        """Number of the store that example i is in, and its number there."""
        place = int(self._places[self._index(i)])
        store = int(np.searchsorted(self._starts, place, side="right")) - 1
        return store, place - int(self._starts[store])

    def windows(self, requests: Sequence[tuple[int, int, int | None]]) -> list[Window]:
        results: list[Any] = [None] * len(requests)
        for store, (places, numbers) in self._by_store([self._index(i) for i, _, _ in requests]):
            own = [(i, *requests[place][1:]) for place, i in zip(places, numbers.tolist(), strict=True)]
            for place, window in zip(places, self.stores[store].windows(own), strict=True):
                results[place] = window
        return results

    def _described(self, examples: Sequence[int]) -> list[tuple[str, str, Example]]:
        results: list[Any] = [None] * len(examples)
        for store, (places, numbers) in self._by_store(examples):
            for place, found in zip(places, self.stores[store]._described(numbers.tolist()), strict=True):
                results[place] = found
        return results

    def _segment_bits(self, examples: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        results = np.zeros(len(examples), np.uint64)
        for store, (places, numbers) in self._by_store(examples):
            results[places] = self.stores[store]._segment_bits(numbers)
        return results

    def _count_entries(self, examples: npt.NDArray[np.int64]) -> int:
        return sum(self.stores[store]._count_entries(numbers) for store, (_, numbers) in self._by_store(examples))

    def _by_store(
        self, examples: Sequence[int] | npt.NDArray[np.int64]
    ) -> Iterator[tuple[int, tuple[list[int], npt.NDArray[np.int64]]]]:
        """Each store that has some of the examples: where these are in `examples`, and their numbers in the store."""
        places = self._places[np.asarray(examples, np.int64)]
        store_of = np.searchsorted(self._starts, places, side="right") - 1
        for store in np.unique(store_of).tolist():
            own = np.flatnonzero(store_of == store)
            yield store, (own.tolist(), places[own] - self._starts[store])

    def _column(self, columns: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        return np.asarray(np.concatenate(columns)[self._places])


def _require_same_form(first: RecordSequence, other: RecordSequence) -> None:
    """Raise SpecMismatchError, with both names and the fields, unless the rows of both mean the same."""
    changes = [
        change.replace(": was ", ": ").replace(", now ", " and ")
        for change in differences(_form(first.spec), _form(other.spec))
    ]
    if changes:
        raise SpecMismatchError(
            f"{first.storage} and {other.storage} cannot be one sequence, because they differ in {'; '.join(changes)}; "
            "give stores of one tokenizer and with targets of one form"
        )


def _form(spec: StoreSpec) -> dict[str, Any]:
    """What must be equal in all stores."""
    return {
        "tokenizer": spec.tokenizer,
        "vocab_size": spec.vocab_size,
        "tokenizer_size": spec.tokenizer_size,
        "targets": spec.targets.to_document(),
    }


def _common_spec(specs: Sequence[StoreSpec]) -> StoreSpec:
    """The first spec. A field that differs becomes the texts of all, or is empty if it is no text."""
    changes: dict[str, Any] = {}
    for item in fields(StoreSpec):
        values = [getattr(spec, item.name) for spec in specs]
        if any(value != values[0] for value in values):
            texts = list(dict.fromkeys(value for value in values if isinstance(value, str)))
            changes[item.name] = " + ".join(texts) if texts else {} if isinstance(values[0], dict) else None
    if "asked" in changes:
        changes["asked"] = "assistant"  # what all stores have targets for
    return replace(specs[0], **changes)
