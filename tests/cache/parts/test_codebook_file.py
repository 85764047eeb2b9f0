"""Files of codebooks: arrays of another one are detected, though each is sound by itself."""

import numpy as np
import pytest

from cache.errors import IntegrityError
from cache.parts.codebook_file import decode_codebook, encode_codebook
from cache.parts.zarr_zip import group_of_file
from cache.rows.codebook import Codebook

VOCAB = 40


def codebook(listed: list[int]) -> Codebook:
    """Every id has the same list."""
    starts = np.array([0, 0, len(listed)], np.int64)
    return Codebook(np.arange(VOCAB, dtype=np.uint16), np.array(listed, np.uint16), starts, np.ones(VOCAB, np.uint32))


def test_an_array_of_another_codebook_is_detected() -> None:
    """Shards end in their own checksums, so that the checksum of a whole shard says nothing about its content."""
    first, second = codebook(list(range(8))), codebook(list(range(1, 9)))
    one, other = encode_codebook(first), encode_codebook(second)
    decode_codebook(one, first.digest, VOCAB, "one")
    offset, size = group_of_file(one, "one").shards["listed"]
    start, length = group_of_file(other, "other").shards["listed"]
    assert size == length
    mixed = one[:offset] + other[start : start + length] + one[offset + size :]
    with pytest.raises(IntegrityError, match="mixed/listed: altered, or that of another codebook"):
        decode_codebook(mixed, first.digest, VOCAB, "mixed")
