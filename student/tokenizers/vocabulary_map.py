"""Two vocabularies by their bytes: which student token begins what a teacher's token says. Knows no distributions."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.examples.token_bytes import bytes_of_ids

# A student id that there is not: no token begins so; and none comes, as the token before would have been a longer one.
NONE, EXCLUDED = -1, -2
_PENDING = -3
# The byte that a token without bytes begins with.
NO_BYTE = 256
# Stand for the ends of a text. No text holds the byte 0xFF.
END, BEGIN = b"\xffend", b"\xffbegin"
# Answers that are kept, of some 200 bytes each.
MEMORY = 1 << 18

# Ids of a student's tokens for a byte string, or None where its tokenizer has no answer.
Segment = Callable[[bytes], Sequence[int] | None]


class VocabularyMap:
    """What a teacher's ids say, and which student tokens say it.

    A student token that the teacher has as well is never looked for across teacher tokens: the teacher says it in one,
    and has told its probability there. So only the student's own tokens, which the teacher lacks, join what the teacher
    says in several; and two equal vocabularies map one to one.

    teacher, student: bytes of each id, None for those that say nothing. Of ids of equal bytes the last one counts: a
    piece goes before the byte that stands in for it, an added token before a piece, as tokenizers have it.
    segment: the student's tokenizer. By default, and where it has no answer, the longest token that fits comes next.
    Safe to share between threads. Holds at most some 100 MB of answers.
    """

    def __init__(
        self, teacher: Sequence[bytes | None], student: Sequence[bytes | None], segment: Segment | None = None
    ) -> None:
        self.teacher, self.student = tuple(teacher), tuple(student)
        self._ids = {data: id_ for id_, data in enumerate(self.student) if data}
        self._longest = max(map(len, self._ids))
        shared = {data for data in self.teacher if data}
        self._own = sorted(data for data in self._ids if data not in shared)
        self._segment = segment
        # int64 [teacher ids]: first byte; bool [teacher ids]: whether an own token of the student goes on after it.
        self.first_bytes = np.array([data[0] if data else NO_BYTE for data in self.teacher], np.int64)
        self.goes_on = np.array([data is not None and self.begins_own(data) for data in self.teacher], np.bool_)
        ids = [self._ids.get(data, _PENDING) if data else NONE for data in self.teacher]
        self._firsts = np.array(ids, np.int64)
        self.next_bytes = lru_cache(MEMORY >> 4)(self._next_bytes)
        self.first = lru_cache(MEMORY)(self._first)

    def firsts(self, ids: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """The student's first token of what each teacher id says, NONE where it has none; int64, of the ids' shape."""
        found = self._firsts[ids]
        waiting = found == _PENDING
        if waiting.any():
            for id_ in np.unique(ids[waiting]).tolist():
                data = self.teacher[id_]
                assert data is not None
                self._firsts[id_] = self._first(data)
            found = self._firsts[ids]
        return np.asarray(found)

    def begins_own(self, data: bytes) -> bool:
        """Whether an own token of the student is longer than `data` and begins with it."""
        place = bisect_right(self._own, data)
        return place < len(self._own) and self._own[place].startswith(data)

    def _next_bytes(self, data: bytes) -> npt.NDArray[np.bool_]:
        """The bytes with which own tokens of the student go on after `data`, bool [257]; the last is False."""
        found = np.zeros(NO_BYTE + 1, np.bool_)
        place = bisect_right(self._own, data)
        while place < len(self._own) and self._own[place].startswith(data):
            byte = self._own[place][len(data)]
            found[byte] = True
            if byte == 0xFF:
                break
            place = bisect_left(self._own, data + bytes([byte + 1]), place)
        found.setflags(write=False)
        return found

    def _first(self, data: bytes, after: int = NONE) -> int:
        """The student's first token of the bytes that come after its token `after`.

        EXCLUDED where the student's tokenizer would have made `after` longer: it never writes these bytes there. NONE
        where no token of the student begins so.
        """
        before = self.student[after] if after != NONE else None
        if before and self.next_bytes(before)[data[0]]:
            tokens = self._tokens(before + data)
            if len(tokens) > 1 and tokens[0] == after:
                return tokens[1]
            if tokens and len(self.student[tokens[0]] or b"") > len(before):
                return EXCLUDED
        if data in self._ids:
            return self._ids[data]
        tokens = self._tokens(data)
        return tokens[0] if tokens else NONE

    def _tokens(self, data: bytes) -> Sequence[int]:
        """The student's tokens of a byte string, up to a byte that it has none for."""
        told = [id_ for id_ in (self._segment(data) if self._segment else None) or () if self.student[id_]]
        if told and b"".join(self.student[id_] or b"" for id_ in told) == data:
            return told
        tokens: list[int] = []
        place = 0
        while place < len(data):
            lengths = range(min(self._longest, len(data) - place), 0, -1)
            length = next((n for n in lengths if data[place : place + n] in self._ids), 0)
            if not length:
                break
            tokens.append(self._ids[data[place : place + length]])
            place += length
        return tokens


def map_vocabularies(teacher: Any, teacher_size: int, student: Any) -> VocabularyMap:
    """The map between two fast tokenizers. teacher_size: width of the teacher's logits, or more.

    The tokens that end and begin a text correspond by their role; other special tokens, and padding, to nothing.
    Raises InputError for a tokenizer whose tokens stand for no bytes.
    """
    fix = "a student learns across tokenizers only where tokens are bytes or sentence pieces; use the teacher's own"
    backend = student.backend_tokenizer
    said = bytes_of_ids(teacher, teacher_size, fix)
    heard = bytes_of_ids(student, max(student.get_vocab().values()) + 1, fix)
    # The end first: where one token has both roles, it is the end.
    for role, mark in (("eos_token_id", END), ("bos_token_id", BEGIN)):
        here, there = getattr(teacher, role), getattr(student, role)
        if here is not None and there is not None and not said[here] and not heard[there]:
            said[here], heard[there] = mark, mark

    def segment(data: bytes) -> Sequence[int] | None:
        try:
            return list(backend.encode(data.decode(), add_special_tokens=False).ids)
        except UnicodeDecodeError:  # part of a character, or a mark
            return None

    return VocabularyMap(said, heard, segment)
