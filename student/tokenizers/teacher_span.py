"""What a teacher said in one run of its tokens, and the law of a student's next token at any byte of it.

alignment.py states the rules. Knows nothing of the student's other tokens, but for the one before.
"""

from bisect import bisect_left
from collections import defaultdict

import numpy as np
import numpy.typing as npt

from cache.rows.record import Window
from student.tokenizers.vocabulary_map import EXCLUDED, NO_BYTE, NONE, VocabularyMap

# A law is told only if it is known for all but this much where its mass goes.
MOST_UNKNOWN = 0.1
# What is said with less is taken as it is, which moves no more than this: going on from it is not looked into.
SMALL_MASS = 1e-4
# Divides where all entries of a law are left out.
NOTHING = 1e-300

# Student ids int64 [e] and their masses float64 [e]; an id may stand there twice, and NONE is the tail.
Law = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]
# Those of several laws, and before them the number of the law, int64 [e].
Entries = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]


def spell(tokens: npt.NDArray[np.uint32], texts: tuple[bytes | None, ...]) -> list[bytes]:
    """Bytes of each token, up to the first that has none."""
    spelled = []
    for id_ in tokens.tolist():
        data = texts[id_]
        if data is None:
            break
        spelled.append(data)
    return spelled


def edges(texts: list[bytes]) -> npt.NDArray[np.int64]:
    """Where each of the texts begins when they follow one another, and where the last one ends, int64 [n + 1]."""
    return np.cumsum([0, *map(len, texts)])


class TeacherSpan:
    """Tokens first, first + 1, ... of a teacher's window, which say `texts` [n]; the i-th is token first + i.

    text: all that they say. starts: int64 [n + 1], edges(texts). told: bool [n + 1], whether there is a row before the
    i-th token; there is none after the last. goes_on: bool [n], whether the row after it lets the i-th token become the
    beginning of a token that only the student has.
    """

    def __init__(self, teacher: Window, first: int, texts: list[bytes], vocabulary: VocabularyMap) -> None:
        self._teacher, self._first, self._vocabulary = teacher, first, vocabulary
        self.text, self.starts = b"".join(texts), edges(texts)
        ids, n = teacher.tokens[first : first + len(texts)].astype(np.int64), len(texts)
        before = np.arange(first, first + n) - 1
        self.told = np.append((before >= 0) & (teacher.targets.counts[before] > 0), False)
        self.goes_on = self.told[1:] & vocabulary.goes_on[ids]
        followed = np.flatnonzero(self.goes_on)
        entries, row_of = self._entries(followed + 1)
        begins = np.array([vocabulary.next_bytes(texts[i]) for i in followed], np.bool_).reshape(-1, NO_BYTE + 1)
        self.goes_on[followed] = np.bincount(row_of, self._near(entries, begins[row_of]), len(followed)) > 0
        self._ids, self._starts, self._told = ids, self.starts.tolist(), self.told.tolist()

    def whole_laws(self, within: npt.NDArray[np.int64], after: npt.NDArray[np.int64]) -> Entries:
        """The laws of the student's next token where tokens `within` [r] start, int64, if none of them goes on.

        after: int64 [r], the student's token before, or NONE. Masses sum to what those of the rows do.
        """
        targets, vocabulary = self._teacher.targets, self._vocabulary
        entries, row_of = self._entries(within)
        said = targets.ids[entries].astype(np.int64)
        ids, masses = vocabulary.firsts(said), np.exp(targets.logprobs[entries].astype(np.float64))
        tails = np.exp(targets.log_tail[self._first + within - 1].astype(np.float64))
        whole = np.bincount(row_of, masses, len(within)) + tails
        joined = np.array([self._joined(id_) for id_ in after.tolist()], np.bool_).reshape(-1, NO_BYTE + 1)
        for e in np.flatnonzero(self._near(entries, joined[row_of])).tolist():
            data, row = vocabulary.teacher[said[e]] or b"", row_of[e]
            found = vocabulary.first(data, int(after[row]))
            if found != EXCLUDED:
                ids[e] = found
            elif said[e] != self._ids[within[row]]:  # what came can come
                masses[e] = 0.0
        scale = whole / np.maximum(np.bincount(row_of, masses, len(within)) + tails, NOTHING)
        masses[(tails * (scale - 1) > MOST_UNKNOWN)[row_of]] = 0.0  # how much of the tail is left out is not known
        numbers = np.concatenate([row_of, np.arange(len(within))])
        return numbers, np.append(ids, np.full(len(within), NONE)), np.append(masses, tails) * scale[numbers]

    def law(self, i: int, start: int, end: int, after: int) -> Law | None:
        """The law of the student's next token at byte `start`, which the i-th token says; None where it is not known.

        end: where the token that the student has there ends. after: the one before it, or NONE.
        """
        vocabulary = self._vocabulary
        consumed, own = self.text[self._starts[i] : start], int(self._ids[i])
        if not all(self._told[i + 1 : bisect_left(self._starts, end)]):
            return None  # the student's token has a part of the i-th one's mass, and nothing tells which
        ids, masses, tail = self._row(i)
        begins = vocabulary.first_bytes[ids]
        given: dict[int, float] = defaultdict(float, {NONE: tail})
        if consumed:
            given[NONE] += float(masses[begins == NO_BYTE].sum())
            near, plain = begins == consumed[0], slice(0, 0)
        else:
            near = (self._joined(after)[begins] & (masses > SMALL_MASS)) | (ids == own)
            plain = ~near
        for id_, mass in zip(ids[near].tolist(), masses[near].tolist(), strict=True):
            data = vocabulary.teacher[id_] or b""
            if not data.startswith(consumed) or len(data) == len(consumed):
                given[NONE] += mass if consumed.startswith(data) else 0.0
            elif id_ == own:
                self._go_on(given, i, data[len(consumed) :], mass, end, after)
            elif (found := vocabulary.first(data[len(consumed) :], after)) != EXCLUDED:
                given[found] += mass
        student_ids = np.concatenate([np.array(list(given), np.int64), vocabulary.firsts(ids[plain])])
        student_masses = np.concatenate([np.array(list(given.values())), masses[plain]])
        whole = max(float(student_masses.sum()), NOTHING)
        unknown = given[NONE] / whole if consumed else tail / whole - tail
        return None if unknown > MOST_UNKNOWN else (student_ids, student_masses / whole)

    def _go_on(self, given: dict[int, float], i: int, rest: bytes, mass: float, end: int, after: int) -> None:
        """Give out the mass with which the i-th token came: to tokens that go on after it, and to what begins it.

        rest: what it and those before it say from the student's token on.
        """
        vocabulary = self._vocabulary
        longer = end > self._starts[i + 1]
        if self._told[i + 1] and (longer or (mass > SMALL_MASS and vocabulary.begins_own(rest))):
            ids, masses, _ = self._row(i + 1)
            own = int(self._ids[i + 1])
            near = vocabulary.next_bytes(rest)[vocabulary.first_bytes[ids]] & (mass * masses > SMALL_MASS)
            near |= longer & (ids == own)
            for id_, share in zip(ids[near].tolist(), (mass * masses[near]).tolist(), strict=True):
                data = rest + (vocabulary.teacher[id_] or b"")
                if id_ == own:
                    self._go_on(given, i + 1, data, share, end, after)
                elif (found := vocabulary.first(data, after)) != EXCLUDED:
                    given[found] += share
            mass *= max(0.0, 1 - float(masses[near].sum()))
        found = vocabulary.first(rest, after)
        given[found if found != EXCLUDED else vocabulary.first(rest)] += mass  # it came, so it can

    def _joined(self, after: int) -> npt.NDArray[np.bool_]:
        """The bytes that the student's tokenizer may have joined to its token `after`, bool [257]."""
        before = self._vocabulary.student[after] if after != NONE else None
        return self._vocabulary.next_bytes(before) if before else np.zeros(NO_BYTE + 1, np.bool_)

    def _entries(self, within: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Where the entries of the rows before tokens `within` [r] are, and of which of them, 0..r - 1, each is."""
        targets, rows = self._teacher.targets, self._first + within - 1
        counts = targets.counts[rows]
        row_of = np.repeat(np.arange(len(rows)), counts)
        return np.arange(len(row_of)) + np.repeat(targets.offsets[rows] - np.cumsum(counts) + counts, counts), row_of

    def _near(self, entries: npt.NDArray[np.int64], bytes_: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Which entries [e] are not small and begin with one of their bytes, bool [e, 257]."""
        targets = self._teacher.targets
        begins = self._vocabulary.first_bytes[targets.ids[entries]]
        near = bytes_[np.arange(len(entries)), begins] & (targets.logprobs[entries] > np.log(SMALL_MASS))
        return np.asarray(near)

    def _row(self, i: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], float]:
        """Ids, masses and tail of the row before the i-th token, which is among them where its probability is known."""
        targets, row = self._teacher.targets, self._first + i - 1
        held = slice(int(targets.offsets[row]), int(targets.offsets[row + 1]))
        ids = targets.ids[held].astype(np.int64)
        masses = np.exp(targets.logprobs[held].astype(np.float64))
        tail = float(np.exp(targets.log_tail[row]))
        own, logprob = int(self._ids[i]), float(self._teacher.token_logprobs[row + 1])
        if np.isfinite(logprob) and not (ids == own).any():
            mass = min(float(np.exp(logprob)), tail)
            ids, masses, tail = np.append(ids, own), np.append(masses, mass), tail - mass
        return ids, masses, tail
