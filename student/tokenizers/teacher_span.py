"""TeacherSpan: one run of a teacher's tokens, and the distribution of a student's next token at any byte of it.

alignment.py states the rules. Of the student's tokens, only the one before the position is used.
"""

from bisect import bisect_left
from collections import defaultdict

import numpy as np
import numpy.typing as npt

from cache.rows.record import Window
from student.tokenizers.vocabulary_map import EXCLUDED, NO_BYTE, NONE, VocabularyMap

# A distribution is used only if it is unknown for at most this mass which token it belongs to.
MAX_UNKNOWN = 0.1
# Entries of less mass are mapped without looking at what follows, which moves at most this mass.
SMALL_MASS = 1e-4
# Smallest divisor, for a distribution without entries.
MIN_DIVISOR = 1e-300

# Student ids int64 [e] and their masses float64 [e]. An id may occur twice. NONE is the tail.
Distribution = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]
# The same of several distributions. Before them: the index of the distribution, int64 [e].
Entries = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]


def token_bytes(tokens: npt.NDArray[np.uint32], texts: tuple[bytes | None, ...]) -> list[bytes]:
    """Bytes of each token, up to the first token without bytes. texts: bytes of each id."""
    result = []
    for id_ in tokens.tolist():
        data = texts[id_]
        if data is None:
            break
        result.append(data)
    return result


def byte_offsets(texts: list[bytes]) -> npt.NDArray[np.int64]:
    """Offsets of the concatenated texts: the start of each, and the end of the last, int64 [n + 1]."""
    return np.cumsum([0, *map(len, texts)])


class TeacherSpan:
    """Tokens first, first + 1, ... of a teacher's window, with the bytes `texts` [n]. The i-th is token first + i.

    text: all their bytes. starts: int64 [n + 1], byte_offsets(texts). has_row: bool [n + 1], whether there is a row
    before the i-th token; False after the last. may_continue: bool [n], whether the row after the i-th token allows
    that it is the beginning of a token that only the student has.
    """

    def __init__(self, teacher: Window, first: int, texts: list[bytes], vocabulary: VocabularyMap) -> None:
        self._teacher, self._first, self._vocabulary = teacher, first, vocabulary
        self.text, self.starts = b"".join(texts), byte_offsets(texts)
        ids, n = teacher.tokens[first : first + len(texts)].astype(np.int64), len(texts)
        before = np.arange(first, first + n) - 1
        self.has_row = np.append((before >= 0) & (teacher.targets.counts[before] > 0), False)
        self.may_continue = self.has_row[1:] & vocabulary.may_continue[ids]
        continued = np.flatnonzero(self.may_continue)
        entries, row_of = self._entries(continued + 1)
        first_bytes = np.array([vocabulary.next_bytes(texts[i]) for i in continued], np.bool_).reshape(-1, NO_BYTE + 1)
        self.may_continue[continued] = (
            np.bincount(row_of, self._begin_with(entries, first_bytes[row_of]), len(continued)) > 0
        )
        self._ids, self._starts, self._has_row = ids, self.starts.tolist(), self.has_row.tolist()

    def whole_distributions(self, within: npt.NDArray[np.int64], after: npt.NDArray[np.int64]) -> Entries:
        """Distributions of the student's next token where tokens `within`, int64 [r], start, if none of them continues.

        after: int64 [r], the student's token before, or NONE. The masses have the same sum as those of the rows.
        """
        targets, vocabulary = self._teacher.targets, self._vocabulary
        entries, row_of = self._entries(within)
        teacher_ids = targets.ids[entries].astype(np.int64)
        ids, masses = vocabulary.firsts(teacher_ids), np.exp(targets.logprobs[entries].astype(np.float64))
        tails = np.exp(targets.log_tail[self._first + within - 1].astype(np.float64))
        total = np.bincount(row_of, masses, len(within)) + tails
        mergeable = np.array([self._mergeable_bytes(id_) for id_ in after.tolist()], np.bool_).reshape(-1, NO_BYTE + 1)
        for e in np.flatnonzero(self._begin_with(entries, mergeable[row_of])).tolist():
            data, row = vocabulary.teacher[teacher_ids[e]] or b"", row_of[e]
            first_token = vocabulary.first(data, int(after[row]))
            if first_token != EXCLUDED:
                ids[e] = first_token
            elif teacher_ids[e] != self._ids[within[row]]:  # the token that follows is possible
                masses[e] = 0.0
        scale = total / np.maximum(np.bincount(row_of, masses, len(within)) + tails, MIN_DIVISOR)
        masses[(tails * (scale - 1) > MAX_UNKNOWN)[row_of]] = 0.0  # the part of the tail to remove is unknown
        distribution_of = np.concatenate([row_of, np.arange(len(within))])
        return (
            distribution_of,
            np.append(ids, np.full(len(within), NONE)),
            np.append(masses, tails) * scale[distribution_of],
        )

    def distribution(self, i: int, start: int, end: int, after: int) -> Distribution | None:
        """Distribution of the student's next token at byte `start`, within the i-th token; None if it is unknown.

        end: end of the student's token that starts there. after: the student's token before, or NONE.
        """
        vocabulary = self._vocabulary
        consumed, token = self.text[self._starts[i] : start], int(self._ids[i])
        if not all(self._has_row[i + 1 : bisect_left(self._starts, end)]):
            return None  # the student's token has an unknown part of the mass of the i-th token
        ids, masses, tail = self._row(i)
        first_bytes = vocabulary.first_bytes[ids]
        mass_of: dict[int, float] = defaultdict(float, {NONE: tail})
        if consumed:
            mass_of[NONE] += float(masses[first_bytes == NO_BYTE].sum())
            is_candidate, is_unchanged = first_bytes == consumed[0], slice(0, 0)
        else:
            is_candidate = (self._mergeable_bytes(after)[first_bytes] & (masses > SMALL_MASS)) | (ids == token)
            is_unchanged = ~is_candidate
        for id_, mass in zip(ids[is_candidate].tolist(), masses[is_candidate].tolist(), strict=True):
            data = vocabulary.teacher[id_] or b""
            if not data.startswith(consumed) or len(data) == len(consumed):
                mass_of[NONE] += mass if consumed.startswith(data) else 0.0
            elif id_ == token:
                self._distribute(mass_of, i, data[len(consumed) :], mass, end, after)
            elif (first_token := vocabulary.first(data[len(consumed) :], after)) != EXCLUDED:
                mass_of[first_token] += mass
        student_ids = np.concatenate([np.array(list(mass_of), np.int64), vocabulary.firsts(ids[is_unchanged])])
        student_masses = np.concatenate([np.array(list(mass_of.values())), masses[is_unchanged]])
        total = max(float(student_masses.sum()), MIN_DIVISOR)
        unknown_mass = mass_of[NONE] / total if consumed else tail / total - tail
        return None if unknown_mass > MAX_UNKNOWN else (student_ids, student_masses / total)

    def _distribute(self, mass_of: dict[int, float], i: int, rest: bytes, mass: float, end: int, after: int) -> None:
        """Distribute the mass of the i-th token: to tokens that continue after it, and to the first token of its bytes.

        rest: bytes of it and of the tokens before it, from the start of the student's token.
        """
        vocabulary = self._vocabulary
        is_longer = end > self._starts[i + 1]
        if self._has_row[i + 1] and (is_longer or (mass > SMALL_MASS and vocabulary.begins_own(rest))):
            ids, masses, _ = self._row(i + 1)
            token = int(self._ids[i + 1])
            is_candidate = vocabulary.next_bytes(rest)[vocabulary.first_bytes[ids]] & (mass * masses > SMALL_MASS)
            is_candidate |= is_longer & (ids == token)
            for id_, share in zip(ids[is_candidate].tolist(), (mass * masses[is_candidate]).tolist(), strict=True):
                data = rest + (vocabulary.teacher[id_] or b"")
                if id_ == token:
                    self._distribute(mass_of, i + 1, data, share, end, after)
                elif (first_token := vocabulary.first(data, after)) != EXCLUDED:
                    mass_of[first_token] += share
            mass *= max(0.0, 1 - float(masses[is_candidate].sum()))
        first_token = vocabulary.first(rest, after)
        # The token follows, so it is possible.
        mass_of[first_token if first_token != EXCLUDED else vocabulary.first(rest)] += mass

    def _mergeable_bytes(self, after: int) -> npt.NDArray[np.bool_]:
        """The bytes that the student's tokenizer might merge with its token `after`, bool [257]."""
        before = self._vocabulary.student[after] if after != NONE else None
        return self._vocabulary.next_bytes(before) if before else np.zeros(NO_BYTE + 1, np.bool_)

    def _entries(self, within: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Indices of the entries of the rows before tokens `within` [r], and the row, 0..r - 1, of each entry."""
        targets, rows = self._teacher.targets, self._first + within - 1
        counts = targets.counts[rows]
        row_of = np.repeat(np.arange(len(rows)), counts)
        return np.arange(len(row_of)) + np.repeat(targets.offsets[rows] - np.cumsum(counts) + counts, counts), row_of

    def _begin_with(self, entries: npt.NDArray[np.int64], bytes_: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Whether entries, [e], have enough mass and begin with one of their bytes. bytes_: bool [e, 257]."""
        targets = self._teacher.targets
        first_bytes = self._vocabulary.first_bytes[targets.ids[entries]]
        is_candidate = bytes_[np.arange(len(entries)), first_bytes] & (targets.logprobs[entries] > np.log(SMALL_MASS))
        return np.asarray(is_candidate)

    def _row(self, i: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], float]:
        """Ids, masses and tail of the row before the i-th token. It is one of the ids if its probability is known."""
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
