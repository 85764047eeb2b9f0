"""How much each example counts in each term of a loss: by a weight in its metadata, and by what a term is for."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cache.errors import InputError
from cache.examples.example import Example
from cache.store.reading.selection import has_metadata
from student.data.sources import Examples
from student.losses.settings import TermSettings


class ExampleWeights:
    """The weights of a source's examples. key: of the metadata with the weight of each example; None: they are equal.

    The texts of all examples are read once if a term is for some of them only (`loss.terms[].where`).
    Raises InputError if no example has the metadata of a term.
    """

    def __init__(self, source: Examples, terms: Sequence[TermSettings], key: str | None) -> None:
        self._source, self._key = source, key
        self._learned = learned_by(source, terms)

    def of(self, examples: Sequence[int]) -> npt.NDArray[np.float32] | None:
        """Factors of the row weights, float32 [examples, terms] or [examples, 1]; None if all are 1."""
        weights = None
        if self._key is not None:
            own = [example_weight(self._source.texts(i), self._key) for i in examples]
            weights = np.array(own, np.float32)[:, None]
        if self._learned is None:
            return weights
        learned = self._learned[list(examples)]
        return learned if weights is None else learned * weights


def learned_by(source: Examples, terms: Sequence[TermSettings]) -> npt.NDArray[np.float32] | None:
    """1 where a term learns from an example, else 0, float32 [examples, terms]. None if every term learns from all."""
    if not any(term.where for term in terms):
        return None
    columns = [
        has_metadata(source.all_texts(), term.where, f"loss.terms.{number}.where")
        if term.where
        else np.ones(len(source), np.bool_)
        for number, term in enumerate(terms)
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def require_learners(source: Examples, terms: Sequence[TermSettings]) -> None:
    """Raise InputError if a term learns from no training example."""
    learned = learned_by(source, terms)
    if learned is None:
        return
    for number, term in enumerate(terms):
        if not learned[:, number].any():
            raise InputError(
                f"loss.terms.{number}.where = {term.where!r}: none of the {len(source):,} training examples has these "
                "metadata; correct the values, or leave the term out"
            )


def example_weight(example: Example, key: str) -> float:
    """The weight of an example, from this key of its metadata. Raises InputError if it has none."""
    value = example.metadata.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise InputError(
            f"example {example.id}: metadata {key!r} is {value!r}, not a weight of 0 or more; give every example one, "
            "or leave out loss.example_weight"
        )
    return float(value)
