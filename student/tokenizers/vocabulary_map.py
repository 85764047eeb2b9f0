"""Two vocabularies compared by their bytes: the student's first token for the bytes of each teacher token."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.examples.token_bytes import bytes_of_ids

# No student id. NONE: no token begins with these bytes. EXCLUDED: the student's tokenizer never puts them there,
# because it would merge them with the token before.
NONE, EXCLUDED = -1, -2
_PENDING = -3
# Stands for the first byte of a token without bytes.
NO_BYTE = 256
# Stand for the end and the beginning of a text. No text contains the byte 0xFF.
END, BEGIN = b"\xffend", b"\xffbegin"
# Cached results, of some 200 bytes each.
MAX_CACHED = 1 << 18

# Ids of a student's tokens for a byte string, or None if its tokenizer cannot encode it.
Segment = Callable[[bytes], Sequence[int] | None]


class VocabularyMap:
    """The bytes of a teacher's ids, and the student's tokens for them.

    Own tokens of the student are those that the teacher lacks. Only they may cover several teacher tokens: a token that
    the teacher has too has its probability in one row. So two equal vocabularies map one to one.

    teacher, student: bytes of each id, None for those without bytes. Of several ids with the same bytes the last one is
    used, as tokenizers do: a piece rather than its byte fallback, an added token rather than a piece.
    segment: the student's tokenizer. Without one, and where it returns None, the longest matching token comes next.
    Safe to share between threads. Caches at most some 100 MB of results.
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
        # Of each teacher id: the first byte; and whether a longer own token of the student begins with its bytes.
        self.first_bytes = np.array([data[0] if data else NO_BYTE for data in self.teacher], np.int64)
        self.may_continue = np.array([data is not None and self.begins_own(data) for data in self.teacher], np.bool_)
        ids = [self._ids.get(data, _PENDING) if data else NONE for data in self.teacher]
        self._firsts = np.array(ids, np.int64)
        self.next_bytes = lru_cache(MAX_CACHED >> 4)(self._next_bytes)
        self.first = lru_cache(MAX_CACHED)(self._first)

    def firsts(self, ids: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """The student's first token for the bytes of each teacher id, or NONE; int64, in the shape of the ids."""
        found = self._firsts[ids]
        is_pending = found == _PENDING
        if is_pending.any():
            for id_ in np.unique(ids[is_pending]).tolist():
                data = self.teacher[id_]
                assert data is not None
                self._firsts[id_] = self._first(data)
            found = self._firsts[ids]
        return np.asarray(found)

    def begins_own(self, data: bytes) -> bool:
        """Whether an own token of the student is longer than `data` and begins with it."""
        position = bisect_right(self._own, data)
        return position < len(self._own) and self._own[position].startswith(data)

    def _next_bytes(self, data: bytes) -> npt.NDArray[np.bool_]:
        """The bytes that follow `data` in own tokens of the student, bool [257]; the last is False."""
        found = np.zeros(NO_BYTE + 1, np.bool_)
        position = bisect_right(self._own, data)
        while position < len(self._own) and self._own[position].startswith(data):
            byte = self._own[position][len(data)]
            found[byte] = True
            if byte == 0xFF:
                break
            position = bisect_left(self._own, data + bytes([byte + 1]), position)
        found.setflags(write=False)
        return found

    def _first(self, data: bytes, after: int = NONE) -> int:
        """The student's first token of bytes that follow its token `after`.

        EXCLUDED if the student's tokenizer would extend `after`, so that these bytes never follow it. NONE if no token
        of the student begins with them.
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
        """The student's tokens of a byte string, up to the first byte without a token."""
        tokens_of_segment = [id_ for id_ in (self._segment(data) if self._segment else None) or () if self.student[id_]]
        if tokens_of_segment and b"".join(self.student[id_] or b"" for id_ in tokens_of_segment) == data:
            return tokens_of_segment
        tokens: list[int] = []
        position = 0
        while position < len(data):
            lengths = range(min(self._longest, len(data) - position), 0, -1)
            length = next((n for n in lengths if data[position : position + n] in self._ids), 0)
            if not length:
                break
            tokens.append(self._ids[data[position : position + length]])
            position += length
        return tokens


def map_vocabularies(teacher: Any, teacher_size: int, student: Any) -> VocabularyMap:
    """Compare the vocabularies of two fast tokenizers. teacher_size: number of the teacher's logits, or more.

    The tokens for the end and the beginning of a text correspond. Other special tokens and padding have no counterpart.
    Raises InputError for a tokenizer whose tokens have no bytes.
    """
    fix = "a student learns across tokenizers only where tokens are bytes or sentence pieces; use the teacher's own"
    backend = student.backend_tokenizer
    teacher_bytes = bytes_of_ids(teacher, teacher_size, fix)
    student_bytes = bytes_of_ids(student, max(student.get_vocab().values()) + 1, fix)
    # The end first: a token with both roles is the end.
    for role, mark in (("eos_token_id", END), ("bos_token_id", BEGIN)):
        teacher_id, student_id = getattr(teacher, role), getattr(student, role)
        if (
            teacher_id is not None
            and student_id is not None
            and not teacher_bytes[teacher_id]
            and not student_bytes[student_id]
        ):
            teacher_bytes[teacher_id], student_bytes[student_id] = mark, mark

    def segment(data: bytes) -> Sequence[int] | None:
        try:
            return list(backend.encode(data.decode(), add_special_tokens=False).ids)
        except UnicodeDecodeError:  # part of a character, END or BEGIN
            return None

    return VocabularyMap(teacher_bytes, student_bytes, segment)
