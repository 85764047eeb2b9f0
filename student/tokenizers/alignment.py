"""Convert a teacher's target rows, over its own tokens, to rows over a student's tokens. Knows no tokenizer.

Both tokenisations consist of the same bytes. The target of a student token is the distribution of the student's next
token, if the teacher continues from the same bytes and the student's tokenizer splits the continuation. How much of
this distribution follows from the stored rows depends on the byte where the student's token starts:

EXACT: A teacher token t starts there too. The row before t is the distribution of what follows. Each entry x gives its
    probability to the first student token of x, or to the tail if x has no bytes. The rows do not say whether x would
    continue to a longer student token, so it is assumed that it does not. For x = t this is known, see CHAINED.
CHAINED: As EXACT, and the student's token is longer than t. Its probability is that of t times what the next row gives
    to the remaining bytes, and so on over all teacher tokens that it covers. This mass is subtracted from t, or from
    the tail if t is no entry. The rest of t's mass goes to the student's first token of t and not to the tail, because
    the tail is mass on none of the row's other ids. t is split in this way wherever student-only tokens begin with t,
    even if none of them follows. So a target depends as little as possible on what follows.
INSIDE: The student's token starts within a teacher token t, after its first bytes c. Of the row before t, only entries
    that begin with c count. c is removed from them, and their masses are divided by the sum. The continuation of the
    tail, and of entries that are c or a prefix of c, is unknown. All of their mass becomes the target's tail, an upper
    bound of the true tail. The row is dropped if this tail is above MAX_UNKNOWN_MASS.
MASKED: All other cases: no row, no entry with bytes, different text before, or a different number of turns.

In all cases, entries cannot occur if the student's tokenizer would have merged them with the previous token. They are
dropped, and the rest is divided by its sum. The row is dropped if this adds more than MAX_UNKNOWN_MASS to the tail,
because it is unknown which part of the tail would be dropped. Entries and tail have a total mass of 1, as in the
teacher's row. Equal vocabularies give equal rows.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from cache.examples.example import Segment
from cache.rows.record import Window
from student.tokenizers.target_rows import Entries, build_rows
from student.tokenizers.teacher_turn import TeacherTurn, boundaries, bytes_of_tokens
from student.tokenizers.thoughts import common_prefix, find_words
from student.tokenizers.vocabulary_map import END_OF_TEXT, NO_TOKEN, VocabularyMap


class Alignment(IntEnum):
    """How a student token is aligned with the teacher's tokens. PROMPT: it needs no target."""

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
    """Convert the teacher's targets to a window of the student's tokens, uint32 [n], with their segments, uint8 [n].

    Both windows are of the same example, prompts included. The assistant's turns in one window correspond to those in
    the other, in order. The teacher's targets must be exact (topk, nucleus). Student tokens within the teacher's LABEL
    become LABEL. token_logprobs are NaN. Entropy and log-normalisers are dropped.
    """
    n = len(tokens)
    kinds = np.where(segments == Segment.PROMPT, Alignment.PROMPT, Alignment.MASKED).astype(np.uint8)
    segments = segments.copy()
    parts: list[Entries] = []
    teacher_turns, student_turns = _find_turns(teacher.segments), _find_turns(segments)
    if len(teacher_turns) == len(student_turns):
        for (first, last), (start, end) in zip(teacher_turns, student_turns, strict=True):
            kinds[start:end], indices, entries = _align_turn(teacher, first, last, tokens[start:end], vocabulary)
            labels = np.flatnonzero((indices >= 0) & (teacher.segments[indices] == Segment.LABEL))
            segments[start + labels] = Segment.LABEL
            parts += [each._replace(positions=start + each.positions) for each in entries]
    targets = build_rows(n, parts)
    has_no_row = np.append(True, targets.counts[:-1] == 0)
    kinds[has_no_row & (kinds != Alignment.PROMPT)] = Alignment.MASKED
    return Aligned(Window(tokens, segments, targets, np.full(n, np.nan, np.float32)), kinds)


def _align_turn(
    teacher: Window, first: int, last: int, tokens: npt.NDArray[np.uint32], vocabulary: VocabularyMap
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], list[Entries]]:
    """Align one turn of the assistant: tokens first:last of the teacher's window, and the student's tokens [m].

    Returns the Alignment of each student token, uint8 [m], the index of the teacher token that it starts in, int64 [m],
    -1 if there is none, and the entries of their distributions.
    """
    kinds, teacher_indices = np.full(len(tokens), Alignment.MASKED, np.uint8), np.full(len(tokens), -1, np.int64)
    teacher_bytes = bytes_of_tokens(teacher.tokens[first:last], vocabulary.teacher_bytes)
    student_bytes = bytes_of_tokens(tokens, vocabulary.student_bytes)
    skipped = find_words(teacher_bytes, student_bytes)
    if skipped != (0, 0):
        a, b = skipped
        kinds[b:], teacher_indices[b:], entries = _align_turn(teacher, first + a, last, tokens[b:], vocabulary)
        return kinds, teacher_indices, [each._replace(positions=b + each.positions) for each in entries]
    teacher_stripped, student_stripped = _strip_leading_space(teacher_bytes, student_bytes)
    turn, starts = TeacherTurn(teacher, first, teacher_bytes, vocabulary), boundaries(student_bytes)
    shared = common_prefix(turn.text, b"".join(student_bytes))
    if first == 0 and shared < len(turn.text):
        return kinds, teacher_indices, []  # cut on the left: equal texts do not show that the texts before are equal
    indices = np.searchsorted(turn.starts, starts[:-1], side="right") - 1
    is_shared = (starts[:-1] <= shared) & (indices < len(teacher_bytes))
    teacher_indices[: len(student_bytes)][is_shared] = first + indices[is_shared]
    has_row = is_shared
    if teacher_stripped:
        has_row &= indices > 0
    elif student_stripped:
        has_row[0] = False
    has_row[has_row] = turn.has_row[indices[has_row]]
    # Where only one of the texts ends, its template leaves out what the other one writes there, such as a space.
    ends = np.array([data == END_OF_TEXT for data in student_bytes], np.bool_)
    has_row &= ends == np.array([turn.text.startswith(END_OF_TEXT, start) for start in starts[:-1].tolist()], np.bool_)
    positions = np.flatnonzero(has_row)
    kinds[positions], entries = _compute_entries(turn, tokens, starts, positions, indices[positions])
    return kinds, teacher_indices, entries


def _compute_entries(
    turn: TeacherTurn,
    tokens: npt.NDArray[np.uint32],
    starts: npt.NDArray[np.int64],
    positions: npt.NDArray[np.int64],
    indices: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.uint8], list[Entries]]:
    """Compute the Alignment, uint8 [p], and the entries of the student tokens at `positions`, int64 [p].

    starts: int64 [m + 1], the boundaries of the student's tokens. indices: int64 [p], the teacher token in the turn
    that each of the positions starts in.
    """
    is_exact = turn.starts[indices] == starts[positions]
    is_longer = starts[positions + 1] > turn.starts[indices + 1]
    kinds = np.where(is_exact, np.where(is_longer, Alignment.CHAINED, Alignment.EXACT), Alignment.INSIDE)
    previous = np.where(positions > 0, tokens[positions - 1].astype(np.int64), NO_TOKEN)
    is_split = ~is_exact | is_longer | turn.is_extendable[indices]
    unsplit = turn.distributions_at_tokens(indices[~is_split], previous[~is_split])
    parts = [unsplit._replace(positions=positions[~is_split][unsplit.positions])]
    for k in np.flatnonzero(is_split):
        position = positions[k]
        distribution = turn.distribution_at_byte(
            int(indices[k]), int(starts[position]), int(starts[position + 1]), int(previous[k])
        )
        if distribution is not None:
            parts.append(Entries(np.full(len(distribution[0]), position), *distribution))
    return kinds.astype(np.uint8), parts


def _strip_leading_space(teacher_bytes: list[bytes], student_bytes: list[bytes]) -> tuple[bool, bool]:
    """Strip the space before the first token, in place, if only one of the two lists has it.

    Some tokenizers begin every text with a space. The rows of the first token are then not comparable.
    Returns whether the teacher's list was changed, and whether the student's was.
    """
    teacher_has, student_has = (bool(texts) and texts[0].startswith(b" ") for texts in (teacher_bytes, student_bytes))
    if teacher_has != student_has:
        texts = teacher_bytes if teacher_has else student_bytes
        texts[0] = texts[0][1:]
    return teacher_has and not student_has, student_has and not teacher_has


def _find_turns(segments: npt.NDArray[np.uint8]) -> list[tuple[int, int]]:
    """Find the start and end of each turn: consecutive tokens of the assistant."""
    changes = np.flatnonzero(np.diff(np.concatenate([[False], segments != Segment.PROMPT, [False]]).astype(np.int8)))
    return [(int(start), int(end)) for start, end in changes.reshape(-1, 2)]
