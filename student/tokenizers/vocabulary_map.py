"""Compare two vocabularies by their bytes: which student token begins the bytes of a teacher token.

Knows nothing of distributions.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.answers.reasoning import END_THINK, THINK
from cache.examples.token_bytes import bytes_of_ids
from cache.rendering.end_of_turn import end_of_turn

# Instead of a student id. NO_TOKEN: no student token begins these bytes. EXCLUDED: these bytes cannot follow the
# previous token, because the student's tokenizer would have made that token longer.
NO_TOKEN, EXCLUDED = -1, -2
_NOT_COMPUTED = -3
# First byte of a token without bytes.
NO_BYTE = 256
# Bytes of the tokens that end and begin a text. No text contains the byte 0xFF.
END_OF_TEXT, BEGIN_OF_TEXT = b"\xffend", b"\xffbegin"
# Maximum number of cached results, of about 200 bytes each.
MAX_CACHED = 1 << 18

# Ids of the student's tokens for a byte string, or None if its tokenizer cannot encode it.
Encode = Callable[[bytes], Sequence[int] | None]


class VocabularyMap:
    """The bytes of a teacher's ids, and the student tokens for these bytes.

    A student-only token is one whose bytes are no token of the teacher. Only student-only tokens may
    cover several teacher tokens. A token that the teacher has too gets its probability from one row. So two equal
    vocabularies map one to one.

    teacher_bytes, student_bytes: bytes of each id, None for ids without text. If several ids have equal bytes, the last
    one is used. As in tokenizers, a piece takes precedence over a byte-fallback token, and an added token over a piece.
    encode: the student's tokenizer. Without it, or if it returns None, the longest matching token comes next.
    Threads may share a map. Its caches take about 100 MB at most.
    """

    def __init__(
        self,
        teacher_bytes: Sequence[bytes | None],
        student_bytes: Sequence[bytes | None],
        encode: Encode | None = None,
    ) -> None:
        self.teacher_bytes, self.student_bytes = tuple(teacher_bytes), tuple(student_bytes)
        self._id_of_bytes = {data: id_ for id_, data in enumerate(self.student_bytes) if data}
        self._max_length = max(map(len, self._id_of_bytes))
        teacher_tokens = {data for data in self.teacher_bytes if data}
        self._student_only = sorted(data for data in self._id_of_bytes if data not in teacher_tokens)
        self._encode = encode
        # Of each teacher id: its first byte, int64; whether a student-only token extends it, bool.
        self.first_bytes = np.array([data[0] if data else NO_BYTE for data in self.teacher_bytes], np.int64)
        self.is_extendable = np.array(
            [data is not None and self.has_extension(data) for data in self.teacher_bytes], np.bool_
        )
        ids = [self._id_of_bytes.get(data, _NOT_COMPUTED) if data else NO_TOKEN for data in self.teacher_bytes]
        self._first_student_ids = np.array(ids, np.int64)
        self.extension_bytes = lru_cache(MAX_CACHED >> 4)(self._find_extension_bytes)
        self.first_student_id = lru_cache(MAX_CACHED)(self._find_first_student_id)

    def first_student_ids(self, ids: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Find the first student token of each teacher id's bytes, or NO_TOKEN; int64, in the shape of `ids`."""
        student_ids = self._first_student_ids[ids]
        is_missing = student_ids == _NOT_COMPUTED
        if is_missing.any():
            for id_ in np.unique(ids[is_missing]).tolist():
                data = self.teacher_bytes[id_]
                assert data is not None
                self._first_student_ids[id_] = self._find_first_student_id(data)
            student_ids = self._first_student_ids[ids]
        return np.asarray(student_ids)

    def has_extension(self, data: bytes) -> bool:
        """Whether a student-only token begins with `data` and is longer."""
        index = bisect_right(self._student_only, data)
        return index < len(self._student_only) and self._student_only[index].startswith(data)

    def _find_extension_bytes(self, data: bytes) -> npt.NDArray[np.bool_]:
        """Find the bytes that follow `data` in student-only tokens, bool [257]; the last is False."""
        follows = np.zeros(NO_BYTE + 1, np.bool_)
        index = bisect_right(self._student_only, data)
        while index < len(self._student_only) and self._student_only[index].startswith(data):
            byte = self._student_only[index][len(data)]
            follows[byte] = True
            if byte == 0xFF:
                break
            index = bisect_left(self._student_only, data + bytes([byte + 1]), index)
        follows.setflags(write=False)
        return follows

    def _find_first_student_id(self, data: bytes, previous: int = NO_TOKEN) -> int:
        """Find the first student token of the bytes `data` that follow the student token `previous`.

        EXCLUDED if the student's tokenizer would have made `previous` longer, so that these bytes cannot follow it.
        NO_TOKEN if no student token begins `data`.
        """
        previous_bytes = self.student_bytes[previous] if previous != NO_TOKEN else None
        if previous_bytes and self.extension_bytes(previous_bytes)[data[0]]:
            tokens = self._tokenize(previous_bytes + data)
            if len(tokens) > 1 and tokens[0] == previous:
                return tokens[1]
            if tokens and len(self.student_bytes[tokens[0]] or b"") > len(previous_bytes):
                return EXCLUDED
        if data in self._id_of_bytes:
            return self._id_of_bytes[data]
        tokens = self._tokenize(data)
        return tokens[0] if tokens else NO_TOKEN

    def _tokenize(self, data: bytes) -> Sequence[int]:
        """Split a byte string into student tokens, up to the first byte that no token begins with."""
        encoded = [id_ for id_ in (self._encode(data) if self._encode else None) or () if self.student_bytes[id_]]
        if encoded and b"".join(self.student_bytes[id_] or b"" for id_ in encoded) == data:
            return encoded
        tokens: list[int] = []
        start = 0
        while start < len(data):
            lengths = range(min(self._max_length, len(data) - start), 0, -1)
            length = next((n for n in lengths if data[start : start + n] in self._id_of_bytes), 0)
            if not length:
                break
            tokens.append(self._id_of_bytes[data[start : start + length]])
            start += length
        return tokens


def map_vocabularies(teacher: Any, teacher_size: int, student: Any) -> VocabularyMap:
    """Map the vocabularies of two fast tokenizers. teacher_size: width of the teacher's logits, or more.

    The tokens that end a text or a turn correspond to each other, and so do those that begin a text. Other special
    tokens and padding correspond to nothing. Raises InputError for a tokenizer whose tokens have no bytes.
    """
    fix = "a student learns across tokenizers only where tokens are bytes or sentence pieces; use the teacher's own"
    backend = student.backend_tokenizer
    teacher_bytes = bytes_of_ids(teacher, teacher_size, fix)
    student_bytes = bytes_of_ids(student, max(student.get_vocab().values()) + 1, fix)
    for tokenizer, known in ((teacher, teacher_bytes), (student, student_bytes)):
        for name in (THINK, END_THINK):  # text in the one, special in the other
            if (id_ := tokenizer.get_vocab().get(name)) is not None and known[id_] is None:
                known[id_] = name.encode()
    # A teacher may end its text by either token. A student learns to end it by the one of its template.
    ends = (_ids(teacher.eos_token_id, end_of_turn(teacher)), _ids(end_of_turn(student)))
    begins = (_ids(teacher.bos_token_id), _ids(student.bos_token_id))
    # The end comes first: a token that has both roles is the end.
    for mark, (teacher_ids, student_ids) in ((END_OF_TEXT, ends), (BEGIN_OF_TEXT, begins)):
        if any(teacher_bytes[id_] for id_ in teacher_ids) or any(student_bytes[id_] for id_ in student_ids):
            continue
        if teacher_ids and student_ids:
            for id_ in teacher_ids:
                teacher_bytes[id_] = mark
            for id_ in student_ids:
                student_bytes[id_] = mark

    def encode(data: bytes) -> Sequence[int] | None:
        try:
            return list(backend.encode(data.decode(), add_special_tokens=False).ids)
        except UnicodeDecodeError:  # part of a character, or one of the marks
            return None

    return VocabularyMap(teacher_bytes, student_bytes, encode)


def _ids(*ids: int | None) -> set[int]:
    return {id_ for id_ in ids if id_ is not None}
