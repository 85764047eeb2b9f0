"""The vocabularies of two tokenizers correspond by bytes and by the roles of special tokens."""

from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from student.tokenizers.vocabulary_map import BEGIN_OF_TEXT, END_OF_TEXT, map_vocabularies

PADDING = 5  # logits that are no token


def test_ends_and_beginnings_correspond_by_role(teacher: Any, student: Any) -> None:
    mapping = map_vocabularies(teacher, len(teacher) + PADDING, student)
    assert (
        len(mapping.teacher_bytes) == len(teacher) + PADDING and mapping.teacher_bytes[-PADDING:] == (None,) * PADDING
    )
    assert mapping.teacher_bytes[teacher.eos_token_id] == mapping.student_bytes[student.eos_token_id] == END_OF_TEXT
    assert mapping.teacher_bytes[teacher.bos_token_id] == mapping.student_bytes[student.bos_token_id] == BEGIN_OF_TEXT
    ends = np.array([teacher.eos_token_id, teacher.bos_token_id, teacher.pad_token_id])
    assert mapping.first_student_ids(ends).tolist() == [student.eos_token_id, student.bos_token_id, -1]
    without = PreTrainedTokenizerFast(tokenizer_object=student.backend_tokenizer)
    mapping = map_vocabularies(teacher, len(teacher), without)
    assert mapping.first_student_ids(ends).tolist() == [-1, -1, -1]


def test_a_byte_stands_in_only_where_no_piece_does(teacher: Any) -> None:
    pieces = {f"<0x{byte:02X}>": byte for byte in range(256)} | {"▁": 256, "o": 257, "n": 258, "on": 259, "▁on": 260}
    backend = Tokenizer(models.BPE(pieces, [("o", "n"), ("▁", "on")], byte_fallback=True))
    backend.normalizer = normalizers.Replace(" ", "▁")
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence(steps)
    mapping = map_vocabularies(teacher, len(teacher), PreTrainedTokenizerFast(tokenizer_object=backend))
    assert [mapping.first_student_id(data) for data in (b"oz", b"z", b" one", b"\xc3")] == [257, ord("z"), 260, 0xC3]


def test_added_tokens_that_are_text_are_aligned(teacher: Any, student: Any, tmp_path: Path) -> None:
    student.save_pretrained(tmp_path / "student")
    other = AutoTokenizer.from_pretrained(tmp_path / "student")
    other.add_tokens([AddedToken("<think>", special=False)])
    mapping = map_vocabularies(teacher, len(teacher), other)
    assert mapping.first_student_id(b"<think>x") == len(other) - 1
    assert len(mapping.student_bytes) == len(other)
