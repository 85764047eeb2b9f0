"""The bytes of one turn of the teacher, and the distribution of a student's next token at any byte of it.

`alignment` states the rules. Knows no student tokens except the previous one.
"""

from bisect import bisect_left
from collections import defaultdict

import numpy as np
import numpy.typing as npt

from cache.rows.record import Window
from student.tokenizers.target_rows import Entries
from student.tokenizers.vocabulary_map import EXCLUDED, NO_BYTE, NO_TOKEN, VocabularyMap

# A distribution is dropped if it is unknown where more than this of its mass goes.
MAX_UNKNOWN_MASS = 0.1
# Continuations of entries with less mass are not computed. This moves no more mass than this.
SMALL_MASS = 1e-4
# Divisor if all entries of a distribution are dropped.
MIN_DIVISOR = 1e-300

# Student ids, int64 [e], and their masses, float64 [e]. An id may occur twice, and NO_TOKEN is the tail.
Distribution = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]


def bytes_of_tokens(tokens: npt.NDArray[np.uint32], bytes_of_id: tuple[bytes | None, ...]) -> list[bytes]:
    """Bytes of each token, up to the first token without bytes."""
    token_bytes = []
    for id_ in tokens.tolist():
        data = bytes_of_id[id_]
        if data is None:
            break
        token_bytes.append(data)
    return token_bytes


def boundaries(token_bytes: list[bytes]) -> npt.NDArray[np.int64]:
    """Start of each token in their concatenation, and the end of the last one, int64 [n + 1]."""
    return np.cumsum([0, *map(len, token_bytes)])


class TeacherTurn:
    """Tokens first, first + 1, ... of a teacher's window, with their bytes [n]. Token i is token first + i there.

    text: all bytes. starts: int64 [n + 1], boundaries of the tokens. has_row: bool [n + 1], whether there is a row
    before token i; there is none after the last. is_extendable: bool [n], whether the row after token i gives mass to
    an entry that extends it towards a student-only token.
    """

    def __init__(self, teacher: Window, first: int, token_bytes: list[bytes], vocabulary: VocabularyMap) -> None:
        self._teacher, self._first, self._vocabulary = teacher, first, vocabulary
        self.text, self.starts = b"".join(token_bytes), boundaries(token_bytes)
        ids, n = teacher.tokens[first : first + len(token_bytes)].astype(np.int64), len(token_bytes)
        rows = np.arange(first, first + n) - 1
        self.has_row = np.append((rows >= 0) & (teacher.targets.counts[rows] > 0), False)
        self.is_extendable = self.has_row[1:] & vocabulary.is_extendable[ids]
        indices = np.flatnonzero(self.is_extendable)
        entries, row_of = self._find_entries(indices + 1)
        allowed = np.array([vocabulary.extension_bytes(token_bytes[i]) for i in indices], np.bool_)
        allowed = allowed.reshape(-1, NO_BYTE + 1)
        extends = self._begin_with(entries, allowed[row_of])
        self.is_extendable[indices] = np.bincount(row_of, extends, len(indices)) > 0
        self._ids, self._starts, self._has_row = ids, self.starts.tolist(), self.has_row.tolist()

    def distributions_at_tokens(self, indices: npt.NDArray[np.int64], previous: npt.NDArray[np.int64]) -> Entries:
        """Compute the distributions of the student's next token where tokens `indices`, int64 [r], start.

        Continuations of these tokens are not computed. previous: int64 [r], the previous student token, or NO_TOKEN.
        Positions of the entries are 0..r - 1. The masses have the same sum as those of the teacher's row.
        """
        targets, vocabulary, n = self._teacher.targets, self._vocabulary, len(indices)
        entries, row_of = self._find_entries(indices)
        teacher_ids = targets.ids[entries].astype(np.int64)
        ids, masses = vocabulary.first_student_ids(teacher_ids), np.exp(targets.logprobs[entries].astype(np.float64))
        tails = np.exp(targets.log_tail[self._first + indices - 1].astype(np.float64))
        totals = np.bincount(row_of, masses, n) + tails
        merging = np.array([self._merging_bytes(id_) for id_ in previous.tolist()], np.bool_).reshape(-1, NO_BYTE + 1)
        for e in np.flatnonzero(self._begin_with(entries, merging[row_of])).tolist():
            data, row = vocabulary.teacher_bytes[teacher_ids[e]] or b"", row_of[e]
            student_id = vocabulary.first_student_id(data, int(previous[row]))
            if student_id != EXCLUDED:
                ids[e] = student_id
            elif teacher_ids[e] != self._ids[indices[row]]:  # the token that followed is possible
                masses[e] = 0.0
        scale = totals / np.maximum(np.bincount(row_of, masses, n) + tails, MIN_DIVISOR)
        masses[(tails * (scale - 1) > MAX_UNKNOWN_MASS)[row_of]] = 0.0  # the excluded part of the tail is unknown
        positions = np.concatenate([row_of, np.arange(n)])
        ids, masses = np.append(ids, np.full(n, NO_TOKEN)), np.append(masses, tails) * scale[positions]
        return Entries(positions, ids, masses)

    def distribution_at_byte(self, i: int, start: int, end: int, previous: int) -> Distribution | None:
        """Compute the distribution of the student's next token at byte `start` of token i, or None if it is unknown.

        end: byte where the student's token that starts there ends. previous: the student token before it, or NO_TOKEN.
        """
        vocabulary = self._vocabulary
        consumed, token = self.text[self._starts[i] : start], int(self._ids[i])
        if not all(self._has_row[i + 1 : bisect_left(self._starts, end)]):
            return None  # the student's token has an unknown part of token i's mass
        ids, masses, tail = self._row(i)
        first_bytes = vocabulary.first_bytes[ids]
        mass_of: dict[int, float] = defaultdict(float, {NO_TOKEN: tail})
        if consumed:
            mass_of[NO_TOKEN] += float(masses[first_bytes == NO_BYTE].sum())
            selected, unchanged = first_bytes == consumed[0], slice(0, 0)
        else:
            selected = (self._merging_bytes(previous)[first_bytes] & (masses > SMALL_MASS)) | (ids == token)
            unchanged = ~selected
        for id_, mass in zip(ids[selected].tolist(), masses[selected].tolist(), strict=True):
            data = vocabulary.teacher_bytes[id_] or b""
            if not data.startswith(consumed) or len(data) == len(consumed):
                mass_of[NO_TOKEN] += mass if consumed.startswith(data) else 0.0
            elif id_ == token:
                self._add_continuations(mass_of, i, data[len(consumed) :], mass, end, previous)
            elif (student_id := vocabulary.first_student_id(data[len(consumed) :], previous)) != EXCLUDED:
                mass_of[student_id] += mass
        unchanged_ids = vocabulary.first_student_ids(ids[unchanged])
        student_ids = np.concatenate([np.array(list(mass_of), np.int64), unchanged_ids])
        student_masses = np.concatenate([np.array(list(mass_of.values())), masses[unchanged]])
        total = max(float(student_masses.sum()), MIN_DIVISOR)
        unknown = mass_of[NO_TOKEN] / total if consumed else tail / total - tail
        return None if unknown > MAX_UNKNOWN_MASS else (student_ids, student_masses / total)

    def _add_continuations(
        self, mass_of: dict[int, float], i: int, prefix: bytes, mass: float, end: int, previous: int
    ) -> None:
        """Add the mass of token i to `mass_of`: to student tokens that continue after it, and to the first one of it.

        prefix: the bytes from the start of the student's token to the end of token i.
        """
        vocabulary = self._vocabulary
        is_longer = end > self._starts[i + 1]
        if self._has_row[i + 1] and (is_longer or (mass > SMALL_MASS and vocabulary.has_extension(prefix))):
            ids, masses, _ = self._row(i + 1)
            next_token = int(self._ids[i + 1])
            first_bytes = vocabulary.first_bytes[ids]
            selected = vocabulary.extension_bytes(prefix)[first_bytes] & (mass * masses > SMALL_MASS)
            selected |= is_longer & (ids == next_token)
            for id_, part in zip(ids[selected].tolist(), (mass * masses[selected]).tolist(), strict=True):
                data = prefix + (vocabulary.teacher_bytes[id_] or b"")
                if id_ == next_token:
                    self._add_continuations(mass_of, i + 1, data, part, end, previous)
                elif (student_id := vocabulary.first_student_id(data, previous)) != EXCLUDED:
                    mass_of[student_id] += part
            mass *= max(0.0, 1 - float(masses[selected].sum()))
        student_id = vocabulary.first_student_id(prefix, previous)
        if student_id == EXCLUDED:  # token i occurred here, so it is possible
            student_id = vocabulary.first_student_id(prefix)
        mass_of[student_id] += mass

    def _merging_bytes(self, previous: int) -> npt.NDArray[np.bool_]:
        """First bytes that the student's tokenizer may merge with its token `previous`, bool [257]."""
        data = self._vocabulary.student_bytes[previous] if previous != NO_TOKEN else None
        return self._vocabulary.extension_bytes(data) if data else np.zeros(NO_BYTE + 1, np.bool_)

    def _find_entries(self, indices: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Find the entries of the rows before tokens `indices` [r], int64 [e], and the row 0..r - 1 of each."""
        targets, rows = self._teacher.targets, self._first + indices - 1
        counts = targets.counts[rows]
        row_of = np.repeat(np.arange(len(rows)), counts)
        return np.arange(len(row_of)) + np.repeat(targets.offsets[rows] - np.cumsum(counts) + counts, counts), row_of

    def _begin_with(self, entries: npt.NDArray[np.int64], allowed: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Which entries [e] are not small and begin with a byte that is allowed for them, bool [e, 257]."""
        targets = self._teacher.targets
        first_bytes = self._vocabulary.first_bytes[targets.ids[entries]]
        is_allowed = allowed[np.arange(len(entries)), first_bytes]
        return np.asarray(is_allowed & (targets.logprobs[entries] > np.log(SMALL_MASS)))

    def _row(self, i: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], float]:
        """Ids, masses and tail of the row before token i. Contains token i if its probability is known."""
        targets, row = self._teacher.targets, self._first + i - 1
        entries = slice(int(targets.offsets[row]), int(targets.offsets[row + 1]))
        ids = targets.ids[entries].astype(np.int64)
        masses = np.exp(targets.logprobs[entries].astype(np.float64))
        tail = float(np.exp(targets.log_tail[row]))
        token, logprob = int(self._ids[i]), float(self._teacher.token_logprobs[row + 1])
        if np.isfinite(logprob) and not (ids == token).any():
            mass = min(float(np.exp(logprob)), tail)
            ids, masses, tail = np.append(ids, token), np.append(masses, mass), tail - mass
        return ids, masses, tail
