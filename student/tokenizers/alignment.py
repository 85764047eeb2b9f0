"""Target rows over a teacher's tokens, mapped to rows over a student's tokens. Pure functions without tokenizers.

Both token sequences spell the same bytes. The target before a student token is the distribution of the student's next
token if the teacher continues from the same bytes and the student's tokenizer splits the continuation. How much the
stored rows determine of it depends on the position where the student's token starts:

EXACT: a teacher token t starts there too. The row before t is the distribution of the continuation. Each entry x adds
    its mass to the student's first token of x, or to the tail if x has no bytes. It is unknown whether x continues to a
    longer token of the student; the rule assumes that it does not. For x = t it is known:
CHAINED: the same, and the student's token is longer than t. Its mass is that of t times the mass of its rest in the
    next row, and so on through all teacher tokens that it covers. This mass is taken from t, or from the tail if t
    is no entry. The rest of t's mass goes to the student's first token of t and not to the tail, because the tail is
    mass on none of the row's other ids. t is split in this way wherever the student has own tokens that begin with t,
    even if none of them follows. So a target depends as little as possible on what follows.
INSIDE: the student's token starts within a teacher token t, after its first bytes c. Only entries that begin with c
    count. c is removed from them, and their masses are divided by the sum. The continuation of the tail, and of entries
    that are c or a prefix of c, is unknown. All of their mass becomes the tail, an upper bound of the true tail. The
    row is used only if this mass is at most MAX_UNKNOWN.
MASKED: everything else. There is no row, no entry has bytes, the text before differs, or the number of turns differs.

In all cases, entries that the student's tokenizer would merge with the student token before them are impossible. They
are removed, and the other masses are divided by their sum, unless that adds more than MAX_UNKNOWN to the tail, of which
an unknown part would have to be removed too. Entries and tail have the mass of the teacher's row, 1. Equal
vocabularies give equal rows.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from cache.examples.example import Segment
from cache.rows.record import Window
from cache.rows.sparse_targets import SparseTargets
from student.tokenizers.teacher_span import Entries, TeacherSpan, byte_offsets, token_bytes
from student.tokenizers.vocabulary_map import NONE, VocabularyMap

# A row whose entries have at most this mass has no target.
MIN_MASS = 1e-6


class Alignment(IntEnum):
    """How a student token is aligned with the teacher's tokens. PROMPT: a token of a prompt, which gets no target."""

    PROMPT = 0
    EXACT = 1
    CHAINED = 2
    INSIDE = 3
    MASKED = 4


@dataclass(frozen=True, slots=True)
class Aligned:
    """A student's window, and the Alignment of each of its tokens, uint8 [n]. Row j is the target of token j + 1."""

    window: Window
    kinds: npt.NDArray[np.uint8]


def align(
    teacher: Window, tokens: npt.NDArray[np.uint32], segments: npt.NDArray[np.uint8], vocabulary: VocabularyMap
) -> Aligned:
    """Make the window of a student's tokens, with targets from the teacher's window of the same example.

    tokens: uint32 [n], of the student, prompts included. segments: uint8 [n]. The assistant's runs of tokens in both
    windows correspond in order. The teacher's targets must be exact ones (topk, nucleus). Student tokens within the
    teacher's LABEL become LABEL. The result has NaN as token_logprobs, and neither entropy nor log-normalisers.
    """
    n = len(tokens)
    kinds = np.where(segments == Segment.PROMPT, Alignment.PROMPT, Alignment.MASKED).astype(np.uint8)
    segments = segments.copy()
    entries_of_runs: list[Entries] = []
    teacher_runs, student_runs = _runs(teacher.segments), _runs(segments)
    if len(teacher_runs) == len(student_runs):
        for (first, last), (start, end) in zip(teacher_runs, student_runs, strict=True):
            kinds[start:end], covering, entries = _align_run(teacher, first, last, tokens[start:end], vocabulary)
            labels = np.flatnonzero((covering >= 0) & (teacher.segments[covering] == Segment.LABEL))
            segments[start + labels] = Segment.LABEL
            entries_of_runs += [(start + positions, ids, masses) for positions, ids, masses in entries]
    targets = _sparse(n, entries_of_runs)
    has_no_target = np.append(True, targets.counts[:-1] == 0)
    kinds[has_no_target & (kinds != Alignment.PROMPT)] = Alignment.MASKED
    return Aligned(Window(tokens, segments, targets, np.full(n, np.nan, np.float32)), kinds)


def _align_run(
    teacher: Window, first: int, last: int, tokens: npt.NDArray[np.uint32], vocabulary: VocabularyMap
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], list[Entries]]:
    """Align one run of the assistant: teacher tokens first:last, and the student's tokens of the same run, [m].

    Returns the Alignment of each student token, uint8 [m]; the index of the teacher token in which it starts, int64
    [m], or -1; and the entries of their distributions.
    """
    kinds, covering = np.full(len(tokens), Alignment.MASKED, np.uint8), np.full(len(tokens), -1, np.int64)
    teacher_bytes = token_bytes(teacher.tokens[first:last], vocabulary.teacher)
    student_bytes = token_bytes(tokens, vocabulary.student)
    # Some tokenizers put a space before every text, which is not part of the text.
    has_space = [bool(texts) and texts[0].startswith(b" ") for texts in (teacher_bytes, student_bytes)]
    if has_space[0] != has_space[1]:
        texts = teacher_bytes if has_space[0] else student_bytes
        texts[0] = texts[0][1:]
    span, starts = TeacherSpan(teacher, first, teacher_bytes, vocabulary), byte_offsets(student_bytes)
    shared_bytes = _common_prefix(span.text, b"".join(student_bytes))
    if first == 0 and shared_bytes < len(span.text):
        return kinds, covering, []  # truncated on the left: the texts before differ even where these agree
    covering_index = np.searchsorted(span.starts, starts[:-1], side="right") - 1
    is_reached = (starts[:-1] <= shared_bytes) & (covering_index < len(teacher_bytes))
    covering[: len(student_bytes)][is_reached] = first + covering_index[is_reached]
    if has_space[0] and not has_space[1]:
        is_reached &= covering_index > 0
    elif has_space[1] and not has_space[0]:
        is_reached[0] = False
    is_reached[is_reached] = span.has_row[covering_index[is_reached]]
    positions = np.flatnonzero(is_reached)
    covering_index = covering_index[positions]
    exact = span.starts[covering_index] == starts[positions]
    longer = starts[positions + 1] > span.starts[covering_index + 1]
    kinds[positions] = np.where(exact, np.where(longer, Alignment.CHAINED, Alignment.EXACT), Alignment.INSIDE)
    before = np.where(positions > 0, tokens[positions - 1].astype(np.int64), NONE)
    is_split = ~exact | longer | span.may_continue[covering_index]
    row_of, ids, masses = span.whole_distributions(covering_index[~is_split], before[~is_split])
    entries = [(positions[~is_split][row_of], ids, masses)]
    for k in np.flatnonzero(is_split):
        distribution = span.distribution(
            int(covering_index[k]), int(starts[positions[k]]), int(starts[positions[k] + 1]), int(before[k])
        )
        if distribution is not None:
            entries.append((np.full(len(distribution[0]), positions[k]), *distribution))
    return kinds, covering, entries


def _sparse(n: int, entries_of_runs: list[Entries]) -> SparseTargets:
    """Make n rows of entries. Masses of the same id are added, and those of NONE are the tail.

    The distribution of token j is row j - 1. Entries of equal mass keep their order. Rows of almost no mass are empty.
    """
    no_entries = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    positions, ids, masses = (np.concatenate(parts) for parts in zip(no_entries, *entries_of_runs, strict=True))
    has_row = positions > 0
    rows, ids, masses = positions[has_row] - 1, ids[has_row], masses[has_row]
    order = np.lexsort((ids, rows))
    is_new = np.append(True, (np.diff(rows[order]) != 0) | (np.diff(ids[order]) != 0))[: len(order)]
    groups = np.flatnonzero(is_new)
    masses = np.add.reduceat(masses[order], groups) if len(groups) else masses
    first_index = order[groups]
    rows, ids = rows[first_index], ids[first_index]
    is_entry = (ids != NONE) & (masses > 0)
    entry_mass = np.bincount(rows[is_entry], masses[is_entry], n)
    tails = np.bincount(rows[~is_entry], masses[~is_entry], n)
    selected = np.flatnonzero(is_entry & (entry_mass[rows] > MIN_MASS))
    selected = selected[np.lexsort((first_index[selected], -masses[selected], rows[selected]))]
    counts = np.bincount(rows[selected], minlength=n)
    with np.errstate(divide="ignore"):
        log_tail = np.minimum(np.log(tails), -MIN_MASS / 2)
    return SparseTargets(
        np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]),
        ids[selected].astype(np.uint32),
        np.minimum(np.log(masses[selected]), 0.0).astype(np.float32),
        np.where(counts > 0, log_tail, 0.0).astype(np.float32),
    )


def _runs(segments: npt.NDArray[np.uint8]) -> list[tuple[int, int]]:
    """Start and end of each run of the assistant's tokens."""
    edge = np.flatnonzero(np.diff(np.concatenate([[False], segments != Segment.PROMPT, [False]]).astype(np.int8)))
    return [(int(start), int(end)) for start, end in edge.reshape(-1, 2)]


def _common_prefix(one: bytes, other: bytes) -> int:
    """Length of the common prefix of two texts, in bytes."""
    if one == other:
        return len(one)
    length = min(len(one), len(other))
    differ = np.frombuffer(one[:length], np.uint8) != np.frombuffer(other[:length], np.uint8)
    return int(np.argmax(differ)) if differ.any() else length
