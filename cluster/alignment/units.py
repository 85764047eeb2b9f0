"""Align one unit of a store and write it: what each process does, here or on another machine."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.parts.layout import Profile
from cache.rendering.prompt_form import PromptForm
from cache.storage.base import Storage
from cache.storage.open import open_storage
from cache.store.claims.codebook_choice import CodebookChoice
from cache.store.logit_store import LogitStore
from cache.store.unit_writer import write_unit
from student.tokenizers.aligner import Aligner, in_tokens_of_student
from student.tokenizers.alignment import Alignment


@dataclass(frozen=True)
class AlignmentJob:
    """What the units of an alignment have in common. Processes get it once, and open what it names for themselves.

    source, target: addresses of stores. snapshot: of the source. student: the tokenizer. form: how it renders texts.
    """

    source: str
    snapshot: int | None
    target: str
    student: Any = field(repr=False)
    form: PromptForm
    profile: Profile

    def __getstate__(self) -> dict[str, Any]:
        """Without what a process has opened."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @cached_property
    def store(self) -> LogitStore:
        return LogitStore.open(self.source, self.snapshot)

    @cached_property
    def storage(self) -> Storage:
        return open_storage(self.target)

    @cached_property
    def aligner(self) -> Aligner:
        """Raises SpecMismatchError, StoreError or InputError if the tokenizers or the targets cannot be aligned."""
        return Aligner(self.store.spec, self.source, self.store.load_tokenizer(), self.student, self.form)

    @cached_property
    def codebooks(self) -> CodebookChoice:
        return CodebookChoice(self.storage, self.aligner.spec)


def align_unit(job: AlignmentJob, examples: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Align examples of the source, int64 [n], and write them as one unit of the target.

    Returns the number of the student's tokens by their Alignment, int64 [kinds].
    """
    counts = np.zeros(len(Alignment), np.int64)
    records = []
    for record in job.store[examples.tolist()]:
        aligned = job.aligner.align(record)
        counts += np.bincount(aligned.kinds, minlength=len(Alignment))
        records.append(in_tokens_of_student(record, aligned))
    rounding = job.store.rounding(examples.tolist())
    write_unit(job.storage, job.aligner.spec, records, job.profile, job.codebooks, rounding)
    return counts
