"""Read a store in the tokens of a student whose tokenizer is not the teacher's."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.examples.example import Example
from cache.progress import Progress, no_progress
from cache.rendering.prompt_form import DEFAULT_FORM, PromptForm
from cache.rows.record import Record, Window
from cache.store.logit_store import LogitStore
from student.tokenizers.aligner import Aligner, in_tokens_of_student
from student.tokenizers.alignment import Alignment


@dataclass(frozen=True, slots=True)
class AlignedShares:
    """Number of the student's tokens of the assistant by their alignment (student.tokenizers.alignment)."""

    exact: int
    chained: int
    inside: int
    masked: int

    @classmethod
    def of(cls, counts: npt.NDArray[np.int64]) -> "AlignedShares":
        """From the number of tokens of each Alignment, int64 [kinds]."""
        return cls(*(int(count) for count in counts[Alignment.EXACT :]))

    @property
    def tokens(self) -> int:
        """Their total."""
        return self.exact + self.chained + self.inside + self.masked

    def __str__(self) -> str:
        exact, chained, inside, masked = (
            f"{count / max(self.tokens, 1):.1%}" for count in (self.exact, self.chained, self.inside, self.masked)
        )
        return (
            f"of {self.tokens:,} student tokens {exact} exact, {chained} chained, {inside} inside a teacher token, "
            f"{masked} masked"
        )


@dataclass(frozen=True, slots=True)
class AlignedSizes:
    """The results of aligning a whole store once, which are saved for later.

    tokens, rows: uint32 [examples], the student's tokens of each example, and those with a target. shares: over all
    examples.
    """

    tokens: npt.NDArray[np.uint32]
    rows: npt.NDArray[np.uint32]
    shares: AlignedShares

    def save(self, path: Path) -> None:
        """Write an .npz file."""
        shares = np.array([self.shares.exact, self.shares.chained, self.shares.inside, self.shares.masked], np.int64)
        np.savez(path, tokens=self.tokens, rows=self.rows, shares=shares)

    @classmethod
    def load(cls, path: Path) -> "AlignedSizes":
        """Read a file that `save` wrote."""
        with np.load(path, allow_pickle=False) as archive:
            return cls(archive["tokens"], archive["rows"], AlignedShares(*archive["shares"].tolist()))


class CrossTokenizerStore:
    """A store's examples in another tokenizer's tokens and chat template, with targets aligned by bytes.

    Every read renders and aligns its examples. Only the sizes are cached, 8 bytes an example. Safe to share between
    threads.

    spec: that of the store as an Aligner changes it. tokens, rows: uint32 [examples], the student's tokens of each
    example, and those with a target. shares: over all examples.
    """

    def __init__(
        self,
        store: LogitStore,
        teacher: Any,
        student: Any,
        progress: Progress = no_progress,
        sizes: AlignedSizes | None = None,
        form: PromptForm = DEFAULT_FORM,
    ) -> None:
        """Align the whole store once to compute its sizes, unless earlier `sizes` are given.

        teacher, student: fast tokenizers. form: how the student's renders texts. Raises SpecMismatchError if the store
        was captured with another tokenizer than `teacher`, StoreError if its targets are estimates, InputError for a
        tokenizer whose tokens have no bytes, and for an example that the student's tokenizer cannot encode.
        """
        self._store, self._aligner = store, Aligner(store.spec, store.storage, teacher, student, form)
        self.storage, self.spec = store.storage, self._aligner.spec
        self.sizes = sizes or self._compute_sizes(progress)
        self.tokens, self.rows, self.shares = self.sizes.tokens, self.sizes.rows, self.sizes.shares

    def __len__(self) -> int:
        return len(self._store)

    def has_origin(self, kinds: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Whether each example has one of these origins, bool [examples]."""
        return self._store.has_origin(kinds)

    def read(self, examples: Sequence[int]) -> list[Window]:
        """Windows of the examples in the student's tokens, in the requested order."""
        return [self._aligner.align(record).window for record in self._store[list(examples)]]

    def texts(self, examples: Sequence[int]) -> list[Example]:
        """The texts of each of the examples, in the requested order."""
        return self._store.texts(examples)

    def __getitem__(self, i: int) -> Record:
        """An example with its texts. Its key is that of the store."""
        record = self._store[i]
        return in_tokens_of_student(record, self._aligner.align(record))

    def _compute_sizes(self, progress: Progress) -> AlignedSizes:
        """Align every example, and count its tokens and rows."""
        n = len(self._store)
        tokens, rows = np.zeros(n, np.uint32), np.zeros(n, np.uint32)
        counts = np.zeros(len(Alignment), np.int64)
        for i, record in enumerate(self._store):
            aligned = self._aligner.align(record)
            tokens[i] = len(aligned.window)
            rows[i] = np.count_nonzero(aligned.window.targets.counts)
            counts += np.bincount(aligned.kinds, minlength=len(Alignment))
            progress(i + 1, n)
        return AlignedSizes(tokens, rows, AlignedShares.of(counts))
