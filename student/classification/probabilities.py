"""Class probabilities from a teacher's stored distribution over the first token of its answer.

A class has the probability of all tokens that its variants begin with, whatever follows them. An id that is not stored
counts as 0; `max_missing_mass` bounds the error that this makes.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from cache.errors import InputError, StoreError
from cache.examples.example import Segment
from cache.rows.sparse_targets import SparseTargets
from cache.store.logit_store import LogitStore
from student.classification.labels import ClassIds


@dataclass(frozen=True, slots=True)
class ClassProbabilities:
    """The teacher's probabilities of C classes in N rows.

    log_probs: float32 [N, C] in nats, normalised over the classes; -inf if no id of a class is stored, and NaN in rows
        without any class.
    label_mass: float32 [N], the probability of all classes before normalisation.
    max_missing_mass: float32 [N], the maximum by which label_mass can be too small. An id that is not stored has at
        most the smallest stored probability, and all of them together at most the tail.
    has_class: bool [N], whether any id of a class is stored.
    """

    log_probs: npt.NDArray[np.float32]
    label_mass: npt.NDArray[np.float32]
    max_missing_mass: npt.NDArray[np.float32]
    has_class: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.has_class)

    def take(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> "ClassProbabilities":
        """The rows of a mask, or the rows with these indices."""
        return ClassProbabilities(
            self.log_probs[rows], self.label_mass[rows], self.max_missing_mass[rows], self.has_class[rows]
        )


def answer_row(segments: npt.NDArray[np.uint8], at: Literal["label", "response"], name: str) -> int:
    """The row with the distribution over the first token of the answer. segments: uint8 [n].

    If there are several responses, as in a chat that was scored as a whole, the last response is used. Raises
    InputError, naming the example, if there is no such token, or no row before it.
    """
    answer = Segment.LABEL if at == "label" else Segment.RESPONSE
    written = np.flatnonzero(segments != Segment.PROMPT)
    # Start of the last run of tokens that are not prompt.
    start = int(written[np.append(True, np.diff(written) > 1)][-1]) if len(written) else len(segments)
    positions = np.flatnonzero(segments[start:] == answer)
    if not len(positions) or start + positions[0] == 0:
        raise InputError(
            f"example {name}: no token of segment {answer.name} with a row before it; capture with an answer marker "
            "that the teacher writes reliably, or choose another classes.at"
        )
    return int(start + positions[0] - 1)


def require_class_targets(store: LogitStore) -> None:
    """Raise StoreError if a store has no exact entries to compute class probabilities from."""
    targets = store.spec.targets
    if targets.mode == "sampled":
        raise StoreError(
            f"{store.storage} contains sampled targets: each entry is an unbiased estimate, but class probabilities "
            "are ratios of few entries, which are biased; capture topk or nucleus targets"
        )
    if targets.max_entries == 0:
        raise StoreError(f"{store.storage} contains texts without targets; train from an examples file on hard labels")


def class_log_probs(targets: SparseTargets, ids: ClassIds) -> ClassProbabilities:
    """Class probabilities of each row: the probabilities of a class's ids summed, then normalised over the classes.

    Only exact entries count. A sampled entry, below the threshold of its store, counts as absent: it is there by
    chance, which would make the ratio biased, while the probability of an absent id is bounded.
    """
    n, classes = len(targets), len(ids.names)
    rows, exact = targets.row_of_entry, targets.exact_counts
    indices = np.minimum(np.searchsorted(ids.ids, targets.ids), len(ids.ids) - 1)
    is_label = (ids.ids[indices] == targets.ids) & (targets.rank_of_entry < np.repeat(exact, targets.counts))
    p = np.exp(targets.logprobs[is_label].astype(np.float64))
    mass = np.bincount(rows[is_label] * classes + ids.class_of[indices[is_label]], weights=p, minlength=n * classes)
    mass = mass.reshape(n, classes)
    label_mass = mass.sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_probs = np.log(mass) - np.log(label_mass)[:, None]
    smallest = np.ones(n)
    with_entries = np.flatnonzero(exact)
    last_entries = targets.offsets[with_entries] + exact[with_entries] - 1
    smallest[with_entries] = np.exp(targets.logprobs[last_entries].astype(np.float64))
    absent = len(ids.ids) - np.bincount(rows[is_label], minlength=n)
    max_missing_mass = np.minimum(absent * smallest, np.exp(targets.log_tail.astype(np.float64)))
    return ClassProbabilities(
        log_probs.astype(np.float32),
        label_mass.astype(np.float32),
        max_missing_mass.astype(np.float32),
        label_mass > 0,
    )
