"""Documents: changed bytes are noticed, optional fields ignored, and what needs a newer version is refused by name."""

import pytest

from cache.errors import IntegrityError, NewerFormatError
from cache.json_documents import decode_document, encode_document

BODY = {"key": "0" * 32, "n": 1.5, "text": "ü"}


def test_a_document_says_its_format_and_is_read_as_it_was_written() -> None:
    assert decode_document(encode_document(BODY), "x") == {**BODY, "format": 1, "requires": []}


def test_every_changed_byte_is_noticed() -> None:
    data = encode_document(BODY)
    for position in range(len(data)):
        changed = data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
        with pytest.raises(IntegrityError, match="x: altered or truncated"):
            decode_document(changed, "x")
    for length in range(len(data)):
        with pytest.raises(IntegrityError, match="x: altered or truncated"):
            decode_document(data[:length], "x")


def test_optional_fields_are_ignored_and_required_features_refused_by_name() -> None:
    assert decode_document(encode_document({**BODY, "later": [1]}), "x")["key"] == BODY["key"]
    with pytest.raises(NewerFormatError, match="x: requires the feature 'bands', which this version"):
        decode_document(encode_document(BODY, requires=["codes", "bands"]), "x")
    newer = encode_document(BODY).replace(b'"format":1', b'"format":2')
    with pytest.raises(IntegrityError, match="altered"):  # the checksum comes first
        decode_document(newer, "x")
    with pytest.raises(IntegrityError, match="x: has no field 'colour'"):
        decode_document(encode_document(BODY), "x", ("key", "colour"))
