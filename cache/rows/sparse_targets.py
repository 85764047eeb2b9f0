"""SparseTargets: what a teacher said at each position, in memory."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cache.errors import InputError
from cache.rows.kernels import first_bad_row

# Teachers in half precision, and their rounding, come this close to a mass of 1.
MASS_TOLERANCE = 0.03
PROBLEMS = {
    1: "id {id} is outside the vocabulary of {vocab_size}",
    2: "log-probabilities must be finite and not above 0, found {logprob}",
    3: "log-probabilities must fall within a row, found {logprob} after a smaller one",
    4: "id {id} stands twice in one row",
}


@dataclass(frozen=True, slots=True)
class SparseTargets:
    """Sparse next-token distributions, one row a position. Row j is the law of token j + 1 given tokens 0..j.

    offsets: int64 [n + 1]; the entries of row j are offsets[j]:offsets[j + 1]. A row without entries holds no target.
    ids: uint32 [entries]. The exact entries of a row come first, by falling log-probability; then the sampled ones.
    logprobs: float32 [entries], natural logarithms, normalised over the whole vocabulary. A sampled entry has that of
        the unbiased estimate it stands for: log threshold, or log(draws of this id / all draws).
    log_tail: float32 [n], log of the mass outside the exact entries: -inf where they hold all of it, 0 where there are
        none.
    exact: int64 [n], exact entries of each row; None where all are.
    entropy: float32 [n] in nats, of the whole distribution; None where the teacher did not give it.
    log_normalizers: float32 [n, temperatures], log sum_V exp(logprob / T) for each temperature that the spec declares.
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
        """Entries of each row, int64 [n]."""
        return np.diff(self.offsets)

    @property
    def exact_counts(self) -> npt.NDArray[np.int64]:
        """Exact entries of each row, int64 [n]."""
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
        """Probability mass of the first k exact entries of every row that has entries, float64 [rows with entries]."""
        within = self.rank_of_entry < np.minimum(np.repeat(self.exact_counts, self.counts), k)
        kept = np.where(within, np.exp(self.logprobs.astype(np.float64)), 0.0)
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
            None if self.exact is None else self.exact[start:stop],
            None if self.entropy is None else self.entropy[start:stop],
            None if self.log_normalizers is None else self.log_normalizers[start:stop],
        )

    def validate(self, vocab_size: int, what: str) -> None:
        """Raise InputError naming `what` unless every row is a possible part of a distribution over the vocabulary."""
        problem = self._problem(vocab_size)
        if problem:
            raise InputError(f"{what}: {problem}")

    def _problem(self, vocab_size: int) -> str:
        counts, exact = self.counts, self.exact_counts
        if len(self.offsets) != len(self) + 1 or self.offsets[0] != 0 or (counts < 0).any():
            return "offsets do not describe the rows"
        if not len(self.ids) == len(self.logprobs) == int(self.offsets[-1]):
            return "offsets do not end at the number of entries"
        if len(exact) != len(self) or (exact < 0).any() or (exact > counts).any():
            return "a row cannot have more exact entries than entries"
        if np.isnan(self.log_tail).any() or (self.log_tail > 0).any():
            return "log tail mass must not be above 0"
        if (self.log_tail[exact > 0] == 0).any():
            return "a row with exact entries cannot leave all of its mass to the tail"
        if (self.log_tail[exact == 0] != 0).any():
            return "a row without exact entries leaves all of its mass to the tail"
        for name, values in (("entropy", self.entropy), ("log-normalisers", self.log_normalizers)):
            if values is not None and (len(values) != len(self) or not np.isfinite(values[counts > 0]).all()):
                return f"{name} must be one finite value a row and temperature"
        seen = np.full(vocab_size, -1, np.int64)
        row, reason = first_bad_row(self.offsets, self.ids, self.logprobs, exact, vocab_size, seen)
        if reason:
            return f"row {row}: " + self._entry_problem(row, reason, vocab_size)
        led = np.flatnonzero(exact)
        if len(led):
            # Sums of the exact entries: those of a row end where its sampled ones begin.
            running = np.concatenate([np.zeros(1), np.cumsum(np.exp(self.logprobs), dtype=np.float64)])
            starts = self.offsets[:-1][led]
            total = running[starts + exact[led]] - running[starts] + np.exp(self.log_tail[led].astype(np.float64))
            worst = int(np.argmax(np.abs(total - 1)))
            if abs(total[worst] - 1) > MASS_TOLERANCE:
                return f"row {led[worst]}: its entries and its tail hold a mass of {total[worst]:.4f}, not 1"
        return ""

    def _entry_problem(self, row: int, reason: int, vocab_size: int) -> str:
        """Say what the kernel found, with the value that it found."""
        one = self.rows(row, row + 1)
        falls = np.append(True, np.diff(one.logprobs) <= 0) | (np.arange(len(one.ids)) >= one.exact_counts[0])
        repeats = np.array([one.ids[i] in one.ids[:i] for i in range(len(one.ids))], bool)
        found = {
            1: one.ids >= vocab_size,
            2: ~(np.isfinite(one.logprobs) & (one.logprobs <= 1e-3)),
            3: ~falls,
            4: repeats,
        }[reason]
        at = int(np.flatnonzero(found)[0])
        return PROBLEMS[reason].format(id=int(one.ids[at]), vocab_size=vocab_size, logprob=float(one.logprobs[at]))


def empty_targets(n: int) -> SparseTargets:
    """n rows without entries."""
    return SparseTargets(
        np.zeros(n + 1, np.int64), np.zeros(0, np.uint32), np.zeros(0, np.float32), np.zeros(n, np.float32)
    )


def concatenate(parts: Sequence[SparseTargets]) -> SparseTargets:
    """The rows of all parts, in order. What only some parts have is NaN in the rows of the others."""
    if not parts:
        return empty_targets(0)
    counts = np.concatenate([part.counts for part in parts])
    widths = {part.log_normalizers.shape[1] for part in parts if part.log_normalizers is not None}
    if len(widths) > 1:
        raise InputError(f"targets with log-normalisers for {sorted(widths)} temperatures do not go together")
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
