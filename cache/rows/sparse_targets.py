"""SparseTargets: the teacher's next-token distributions in memory, in sparse form."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cache.errors import InputError
from cache.rows.shared_kernels import first_bad_row, row_masses

# Rounding of teachers in half precision keeps the mass of a row this close to 1.
MASS_TOLERANCE = 0.03
PROBLEMS = {
    1: "id {id} is outside the vocabulary of {vocab_size}",
    2: "log-probabilities must be finite and not above 0, not {logprob}",
    3: "log-probabilities must descend within a row; {logprob} follows a smaller one",
    4: "id {id} occurs twice in one row",
}


@dataclass(frozen=True, slots=True)
class SparseTargets:
    """Sparse next-token distributions, one row per position. Row j predicts token j + 1 from tokens 0..j.

    offsets: int64 [n + 1]; the entries of row j are offsets[j]:offsets[j + 1]. A row without entries has no target.
    ids: uint32 [entries]. First the exact entries of a row, by descending log-probability, then the sampled ones.
    logprobs: float32 [entries], natural logarithms, normalised over the whole vocabulary. For a sampled entry it is the
        logarithm of an unbiased estimate: the threshold, or draws of this id / all draws.
    log_tail: float32 [n], log of the mass outside the exact entries: -inf if they have all of it, 0 if there are none.
    exact: int64 [n], number of exact entries of each row; None if all entries are exact.
    entropy: float32 [n] in nats, of the whole distribution; None if the teacher did not give it.
    log_normalizers: float32 [n, temperatures], log sum_V exp(logprob / T) for each temperature in the spec; or None.
    """

    offsets: npt.NDArray[np.int64]
    ids: npt.NDArray[np.uint32]
    logprobs: npt.NDArray[np.float32]
    log_tail: npt.NDArray[np.float32]
    exact: npt.NDArray[np.int64] | None = None
    entropy: npt.NDArray[np.float32] | None = None
    log_normalizers: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.log_tail)

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Number of entries of each row, int64 [n]."""
        return self.offsets[1:] - self.offsets[:-1]

    @property
    def exact_counts(self) -> npt.NDArray[np.int64]:
        """Number of exact entries of each row, int64 [n]."""
        return self.counts if self.exact is None else self.exact

    @property
    def row_of_entry(self) -> npt.NDArray[np.int64]:
        """Row that each entry belongs to, int64 [entries]."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.counts)

    @property
    def rank_of_entry(self) -> npt.NDArray[np.int64]:
        """Position of each entry within its row, int64 [entries]."""
        return np.arange(len(self.ids), dtype=np.int64) - np.repeat(self.offsets[:-1], self.counts)

    def retained_mass(self, k: int) -> npt.NDArray[np.float64]:
        """Probability mass of the first k exact entries of each row with entries, float64 [rows with entries]."""
        is_head = self.rank_of_entry < np.minimum(np.repeat(self.exact_counts, self.counts), k)
        masses = np.where(is_head, np.exp(self.logprobs.astype(np.float64)), 0.0)
        mass = np.bincount(self.row_of_entry, weights=masses, minlength=len(self))
        return np.asarray(mass[self.counts > 0])

    def rows(self, start: int, stop: int) -> "SparseTargets":
        """Rows start:stop as views."""
        first, last = int(self.offsets[start]), int(self.offsets[stop])
        return SparseTargets(
            self.offsets[start : stop + 1] - first,
            self.ids[first:last],
            self.logprobs[first:last],
            self.log_tail[start:stop],
            None if self.exact is None else self.exact[start:stop],
            None if self.entropy is None else self.entropy[start:stop],
            None if self.log_normalizers is None else self.log_normalizers[start:stop],
        )

    def dense(self, rows: npt.NDArray[np.int64], width: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Ids and log-probabilities of some rows, both [rows, width]. Padding has id 0 and -inf.

        width: at least the number of entries of each of the rows.
        """
        ids = np.zeros((len(rows), width), np.int64)
        logprobs = np.full((len(rows), width), -np.inf, np.float32)
        indices = self.offsets[rows, None] + np.arange(width)
        is_entry = np.arange(width) < self.counts[rows, None]
        ids[is_entry] = self.ids[indices[is_entry]]
        logprobs[is_entry] = self.logprobs[indices[is_entry]]
        return ids, logprobs

    def copy(self) -> "SparseTargets":
        """The same rows with arrays of their own."""
        return SparseTargets(
            self.offsets.copy(),
            self.ids.copy(),
            self.logprobs.copy(),
            self.log_tail.copy(),
            None if self.exact is None else self.exact.copy(),
            None if self.entropy is None else self.entropy.copy(),
            None if self.log_normalizers is None else self.log_normalizers.copy(),
        )

    def validate(self, vocab_size: int, what: str) -> None:
        """Raise InputError, starting with `what`, unless every row can be part of a distribution."""
        problem = self._problem(vocab_size)
        if problem:
            raise InputError(f"{what}: {problem}")

    def require_shape(self, what: str) -> None:
        """Raise InputError, starting with `what`, unless the arrays have the lengths that belong together."""
        problem = self._shape_problem()
        if problem:
            raise InputError(f"{what}: {problem}")

    def _shape_problem(self) -> str:
        """Describe the first array that is too short or too long, "" if there is none."""
        n = len(self)
        if len(self.offsets) != n + 1 or self.offsets[0] != 0:
            return "offsets do not describe the rows"
        if not len(self.ids) == len(self.logprobs) == int(self.offsets[-1]):
            return "offsets do not end at the number of entries"
        if self.exact is not None and len(self.exact) != n:
            return "a row cannot have more exact entries than entries"
        for name, values in (("entropy", self.entropy), ("log-normalisers", self.log_normalizers)):
            if values is not None and len(values) != n:
                return f"{name} must be one finite value per row and temperature"
        return ""

    def _problem(self, vocab_size: int) -> str:
        """Describe the first fault, "" if there is none."""
        if problem := self._shape_problem():
            return problem
        counts, exact = self.counts, self.exact_counts
        if (counts < 0).any():
            return "offsets do not describe the rows"
        if (exact < 0).any() or (exact > counts).any():
            return "a row cannot have more exact entries than entries"
        if np.isnan(self.log_tail).any() or (self.log_tail > 0).any():
            return "log tail mass must not be above 0"
        if (self.log_tail[exact > 0] == 0).any():
            return "the tail of a row with exact entries must be below 1"
        if (self.log_tail[exact == 0] != 0).any():
            return "the tail of a row without exact entries must be 1"
        for name, values in (("entropy", self.entropy), ("log-normalisers", self.log_normalizers)):
            if values is not None and not np.isfinite(values[counts > 0]).all():
                return f"{name} must be one finite value per row and temperature"
        seen = np.full(vocab_size, -1, np.int64)
        row, reason = first_bad_row(self.offsets, self.ids, self.logprobs, exact, vocab_size, seen)
        if reason:
            return f"row {row}: " + self._entry_problem(row, reason, vocab_size)
        return self._mass_problem(exact)

    def _mass_problem(self, exact: npt.NDArray[np.int64]) -> str:
        """Describe the row whose exact entries and tail differ most from a mass of 1, "" if it is close enough."""
        if not len(self):
            return ""
        total = np.empty(len(self))
        row_masses(self.offsets, exact, np.exp(self.logprobs), total)
        total += np.exp(self.log_tail.astype(np.float64))  # 1 in rows without exact entries
        worst = int(np.argmax(np.abs(total - 1)))
        if abs(total[worst] - 1) > MASS_TOLERANCE:
            return f"row {worst}: its entries and its tail have a mass of {total[worst]:.4f}, not 1"
        return ""

    def _entry_problem(self, row: int, reason: int, vocab_size: int) -> str:
        """Describe the fault that the kernel reported, with the value."""
        ids, logprobs = self.rows(row, row + 1).ids, self.rows(row, row + 1).logprobs
        is_sampled = np.arange(len(ids)) >= self.exact_counts[row]
        is_fault = {
            1: ids >= vocab_size,
            2: ~(np.isfinite(logprobs) & (logprobs <= 1e-3)),
            3: ~(np.append(True, np.diff(logprobs) <= 0) | is_sampled),
            4: np.array([ids[i] in ids[:i] for i in range(len(ids))], bool),
        }[reason]
        entry = int(np.flatnonzero(is_fault)[0])
        return PROBLEMS[reason].format(id=int(ids[entry]), vocab_size=vocab_size, logprob=float(logprobs[entry]))


def empty_targets(n: int) -> SparseTargets:
    """n rows without entries."""
    return SparseTargets(
        np.zeros(n + 1, np.int64), np.zeros(0, np.uint32), np.zeros(0, np.float32), np.zeros(n, np.float32)
    )


def concatenate(parts: Sequence[SparseTargets]) -> SparseTargets:
    """The rows of all parts, in order. If only some parts have entropy or log-normalisers, those of the others are NaN.

    Raises InputError if parts have log-normalisers for different numbers of temperatures.
    """
    if not parts:
        return empty_targets(0)
    if len(parts) == 1:
        return parts[0]
    counts = np.concatenate([part.counts for part in parts])
    widths = {part.log_normalizers.shape[1] for part in parts if part.log_normalizers is not None}
    if len(widths) > 1:
        raise InputError(f"targets with log-normalisers for {sorted(widths)} temperatures cannot be concatenated")
    return SparseTargets(
        np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]),
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.logprobs for part in parts]),
        np.concatenate([part.log_tail for part in parts]),
        None if all(part.exact is None for part in parts) else np.concatenate([part.exact_counts for part in parts]),
        None
        if all(part.entropy is None for part in parts)
        else np.concatenate([_or_nan(part.entropy, (len(part),)) for part in parts]),
        np.concatenate([_or_nan(part.log_normalizers, (len(part), *widths)) for part in parts]) if widths else None,
    )


def _or_nan(values: npt.NDArray[np.float32] | None, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    return np.full(shape, np.nan, np.float32) if values is None else values
