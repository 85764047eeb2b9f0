"""Which codebook a writer gives its units: the newest of the store, and a better one when enough rows were seen."""

from threading import Lock

import numpy as np
import numpy.typing as npt

from cache.parts.codebook_learning import SAMPLE_ENTRIES, code_bytes, is_worthwhile, learn_codebook
from cache.rows.codebook import Codebook
from cache.rows.sparse_targets import SparseTargets, concatenate
from cache.rows.spec import StoreSpec
from cache.storage.base import Storage
from cache.store.claims.codebook_claim import claim_codebook, newest_generation, open_codebook, read_claim

# The next codebook is learned from this many times the rows of the one before. Each reader loads all of them.
GROWTH = 8
# Units between two looks whether another writer has claimed a newer codebook.
UNITS_PER_LOOK = 16


class CodebookChoice:
    """The codebooks of one writer of a store. Its threads may share it: they learn one after the other.

    The first codebook of a store is learned from the first unit that any writer writes. Each writer keeps the rows that
    it has seen, up to SAMPLE_ENTRIES entries (8 bytes each). When they are GROWTH times as many as the newest codebook
    was learned from, another one is learned and compared with it on the next unit; if it saves enough bytes, it becomes
    the next generation. There are few generations, because the number of rows is limited.
    """

    def __init__(self, storage: Storage, spec: StoreSpec) -> None:
        self._storage, self._spec = storage, spec
        self._generation = 0
        self._codebook: Codebook | None = None
        self._learned_from = 0
        self._units = 0
        self._sample: list[tuple[SparseTargets, npt.NDArray[np.uint32]]] = []
        self._entries = 0
        self._lock = Lock()

    def of_unit(self, targets: SparseTargets, tokens: npt.NDArray[np.uint32]) -> Codebook:
        """The codebook for a unit with these rows. tokens: uint32 [n], the tokens that the rows follow."""
        with self._lock:
            return self._of_unit(targets, tokens)

    def _of_unit(self, targets: SparseTargets, tokens: npt.NDArray[np.uint32]) -> Codebook:
        if self._units % UNITS_PER_LOOK == 0:
            self._look()
        self._units += 1
        if self._codebook is None:
            self._claim(1, learn_codebook(targets, tokens, self._spec.targets, self._spec.vocab_size), _rows(targets))
        elif self._has_enough():
            self._learn_next(targets, tokens)
        if self._entries < SAMPLE_ENTRIES:
            self._sample.append((targets, tokens))
            self._entries += len(targets.ids)
        assert self._codebook is not None
        return self._codebook

    def _look(self) -> None:
        """Take the newest codebook of the store, if it is newer than this writer's."""
        newest = newest_generation(self._storage)
        if newest > self._generation:
            self._take(newest)

    def _has_enough(self) -> bool:
        """Whether the sample would make a better codebook, which a full one does if it has twice the rows."""
        seen = sum(_rows(targets) for targets, _ in self._sample)
        wanted = GROWTH if self._entries < SAMPLE_ENTRIES else 2
        return seen >= wanted * max(self._learned_from, 1)

    def _learn_next(self, targets: SparseTargets, tokens: npt.NDArray[np.uint32]) -> None:
        """Learn from the sample, and claim the result if it codes this unit in fewer bytes. The sample starts again."""
        assert self._codebook is not None
        seen = concatenate([rows for rows, _ in self._sample])
        spec = self._spec
        learned = learn_codebook(
            seen, np.concatenate([each for _, each in self._sample]), spec.targets, spec.vocab_size
        )
        now, then = (code_bytes(targets, tokens, spec.targets, book) for book in (self._codebook, learned))
        self._sample, self._entries = [], 0
        if is_worthwhile(then, now):
            self._claim(self._generation + 1, learned, _rows(seen))
        else:
            self._learned_from = _rows(seen)  # what this many rows taught was not worth it

    def _claim(self, generation: int, codebook: Codebook, rows: int) -> None:
        if claim_codebook(self._storage, generation, codebook, rows).digest == codebook.digest:
            self._generation, self._codebook, self._learned_from = generation, codebook, rows
        else:
            self._take(generation)

    def _take(self, generation: int) -> None:
        """Use the codebook that was claimed for a generation."""
        claim = read_claim(self._storage, generation)
        self._codebook = open_codebook(self._storage, claim["digest"], self._spec.vocab_size)
        self._generation, self._learned_from = generation, int(claim["rows"])


def _rows(targets: SparseTargets) -> int:
    """Number of rows with entries."""
    return int(np.count_nonzero(targets.counts))
