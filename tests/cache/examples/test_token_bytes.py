"""Ids and bytes of a vocabulary: the id of a token that a service names, and the bytes that an id adds to a text."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from cache.errors import InputError
from cache.examples.token_bytes import byte_level_alphabet, bytes_of_ids, ids_by_bytes


def fast(model: models.Model, decoder: decoders.Decoder | None) -> PreTrainedTokenizerFast:
    backend = Tokenizer(model)
    if decoder is not None:
        backend.decoder = decoder
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def sentence_pieces() -> PreTrainedTokenizerFast:
    vocab = {f"<0x{byte:02X}>": byte for byte in range(256)}
    vocab |= {piece: 256 + i for i, piece in enumerate(["▁the", "the", "▁", "é", "z", "<0xAZ>"])}
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    return fast(models.BPE(vocab, [], byte_fallback=True), decoders.Sequence(steps))


def test_every_token_of_a_byte_level_vocabulary_is_found(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    found = ids_by_bytes(tokenizer)
    assert sorted(found.values()) == list(range(len(tokenizer)))
    assert {bytes([byte]) for byte in range(256)} <= set(found)
    assert len(byte_level_alphabet()) == 256
    for text in ("say one two", " four", "naïve – 漢字 🙂"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        by_id = {id_: data for data, id_ in found.items()}
        assert b"".join(by_id[id_] for id_ in ids).decode() == text
    assert found[b"<|end|>"] == tokenizer.eos_token_id


def test_pieces_with_a_mark_for_spaces_are_found() -> None:
    found = ids_by_bytes(sentence_pieces())
    assert (found[b" the"], found[b"the"]) == (256, 257)
    assert found["é".encode()] == 259
    assert found[b"<0xAZ>"] == 261, "no byte, though it looks like one"
    assert found[b"\xc3"] == 0xC3


def test_a_piece_goes_before_the_byte_that_is_written_without_it() -> None:
    found = ids_by_bytes(sentence_pieces())
    assert (found[b"z"], found[b" "]) == (260, 258)
    assert found[b"y"] == ord("y")


def test_bytes_of_two_tokens_are_none_of_them() -> None:
    tokenizer = sentence_pieces()
    tokenizer.add_tokens([AddedToken(" the")])
    found = ids_by_bytes(tokenizer)
    assert b" the" not in found
    assert found[b"the"] == 257


def test_what_decoders_put_for_broken_characters_is_no_token(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.add_tokens([AddedToken("\N{REPLACEMENT CHARACTER}"), AddedToken("new")])
    found = ids_by_bytes(tokenizer)
    assert "\N{REPLACEMENT CHARACTER}".encode() not in found and b"" not in found
    assert found[b"new"] == len(tokenizer) - 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: fast(models.WordPiece({"[UNK]": 0, "the": 1, "##s": 2}, unk_token="[UNK]"), decoders.WordPiece()),
        lambda: fast(models.WordLevel({"[UNK]": 0, "the": 1}, unk_token="[UNK]"), None),
    ],
    ids=["word pieces", "words"],
)
def test_tokens_that_stand_for_no_bytes_are_refused(make: Callable[[], PreTrainedTokenizerFast]) -> None:
    with pytest.raises(InputError, match=r"have no bytes of their own.*; use one of bytes"):
        ids_by_bytes(make())
    with pytest.raises(InputError, match=r"have no bytes of their own.*; ask for none"):
        bytes_of_ids(make(), 4, fix="ask for none")


def test_the_bytes_of_a_text_are_those_of_its_ids(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    texts = bytes_of_ids(tokenizer, len(tokenizer))
    for text in ("say one two", " four", "naïve – 漢字 🙂"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert b"".join(texts[id_] or b"?" for id_ in ids).decode() == text
    found = ids_by_bytes(tokenizer)
    assert all(found[data] == id_ for id_, data in enumerate(texts) if data)


def test_special_tokens_and_padding_of_the_logits_add_no_bytes(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.add_tokens([AddedToken("<think>", special=False), AddedToken("<|turn|>", special=True)])
    texts = bytes_of_ids(tokenizer, len(tokenizer) + 5)
    assert len(texts) == len(tokenizer) + 5
    assert texts[-7:] == [b"<think>", None, None, None, None, None, None]
    assert {texts[id_] for id_ in tokenizer.all_special_ids} == {None}
    assert sum(data is None for data in texts) == 6 + 1 + 5, "six special tokens when it was learned"
    assert bytes_of_ids(tokenizer, 10) == texts[:10]


def test_pieces_and_the_bytes_that_stand_in_for_them() -> None:
    texts = bytes_of_ids(sentence_pieces(), 262)
    assert (texts[256], texts[257], texts[258], texts[0xC3]) == (b" the", b"the", b" ", b"\xc3")
    assert texts[ord("z")] == texts[260] == b"z", "both add the same byte"
    assert texts[261] == b"<0xAZ>"
