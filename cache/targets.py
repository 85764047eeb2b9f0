"""SparseTargets: what a teacher said at each position, in memory."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cache.errors import InputError


@dataclass(frozen=True, slots=True)
class SparseTargets:
    """Sparse next-token distributions, one row a position. Row j is the law of token j + 1 given tokens 0..j.

    offsets: int64 [n + 1]; the entries of row j are offsets[j]:offsets[j + 1]. A row without entries holds no target.
    ids: uint32 [entries], by falling log-probability within a row.
    logprobs: float32 [entries], natural logarithms, normalised over the whole vocabulary.
    log_tail: float32 [n], log of the mass outside the entries: -inf where they hold all of it, 0 for an empty row.
    """

    offsets: npt.NDArray[np.int64]
    ids: npt.NDArray[np.uint32]
    logprobs: npt.NDArray[np.float32]
    log_tail: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.log_tail)

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Entries of each row, int64 [n]."""
        return np.diff(self.offsets)

    @property
    def row_of_entry(self) -> npt.NDArray[np.int64]:
        """Row that each entry belongs to, int64 [entries]."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.counts)

    @property
    def rank_of_entry(self) -> npt.NDArray[np.int64]:
        """Position of each entry within its row, int64 [entries]."""
        return np.arange(len(self.ids), dtype=np.int64) - np.repeat(self.offsets[:-1], self.counts)

    def retained_mass(self, k: int) -> npt.NDArray[np.float64]:
        """Probability mass of the first k entries of every row that has entries, float64 [rows with entries]."""
        kept = np.where(self.rank_of_entry < k, np.exp(self.logprobs.astype(np.float64)), 0.0)
        mass = np.bincount(self.row_of_entry, weights=kept, minlength=len(self))
        return np.asarray(mass[self.counts > 0])

    def rows(self, start: int, stop: int) -> "SparseTargets":
        """Rows start:stop as views."""
        first, last = int(self.offsets[start]), int(self.offsets[stop])
        return SparseTargets(
            self.offsets[start : stop + 1] - first,
            self.ids[first:last],
            self.logprobs[first:last],
            self.log_tail[start:stop],
        )

    def validate(self, vocab_size: int, what: str) -> None:
        """Raise InputError naming `what` unless every row is a possible part of a distribution over the vocabulary."""
        problem = self._problem(vocab_size)
        if problem:
            raise InputError(f"{what}: {problem}")

    def _problem(self, vocab_size: int) -> str:
        counts = self.counts
        if len(self.offsets) != len(self) + 1 or self.offsets[0] != 0 or (counts < 0).any():
            return "offsets do not describe the rows"
        if not len(self.ids) == len(self.logprobs) == int(self.offsets[-1]):
            return "offsets do not end at the number of entries"
        if len(self.ids) and int(self.ids.max()) >= vocab_size:
            return f"id {int(self.ids.max())} is outside the vocabulary of {vocab_size}"
        if not np.isfinite(self.logprobs).all() or (self.logprobs > 1e-3).any():
            return "log-probabilities must be finite and not above 0"
        if np.isnan(self.log_tail).any() or (self.log_tail > 0).any():
            return "log tail mass must not be above 0"
        if (self.log_tail[counts > 0] == 0).any():
            return "a row with entries cannot leave all of its mass to the tail"
        rows = self.row_of_entry
        if ((np.diff(self.logprobs) > 0) & (np.diff(rows) == 0)).any():
            return "log-probabilities must fall within a row"
        order = np.lexsort((self.ids, rows))
        if ((np.diff(self.ids[order].astype(np.int64)) == 0) & (np.diff(rows[order]) == 0)).any():
            return "an id stands twice in one row"
        return ""


def empty_targets(n: int) -> SparseTargets:
    """n rows without entries."""
    return SparseTargets(
        np.zeros(n + 1, np.int64), np.zeros(0, np.uint32), np.zeros(0, np.float32), np.zeros(n, np.float32)
    )


def concatenate(parts: Sequence[SparseTargets]) -> SparseTargets:
    """The rows of all parts, in order."""
    if not parts:
        return empty_targets(0)
    counts = np.concatenate([part.counts for part in parts])
    return SparseTargets(
        np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]),
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.logprobs for part in parts]),
        np.concatenate([part.log_tail for part in parts]),
    )
