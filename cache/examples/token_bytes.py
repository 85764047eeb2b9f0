"""The bytes of each id of a fast tokenizer, and the id of each byte string. Imports no tokenizer library."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from cache.errors import InputError

SPACE_MARK = "▁"
BYTE_TOKEN = re.compile("<0x([0-9A-Fa-f]{2})>")
# Decoders write this for incomplete characters, whose bytes are then unknown.
REPLACEMENT = "\N{REPLACEMENT CHARACTER}".encode()


def ids_by_bytes(tokenizer: Any, fix: str = "use one of bytes or of sentence pieces") -> dict[bytes, int]:
    """Id of each byte string that belongs to exactly one token of a fast tokenizer. Services name tokens by bytes.

    Special tokens are listed by their text. Raises InputError, with `fix` as the remedy, for a tokenizer whose tokens
    have no bytes of their own, such as one of word pieces.
    """
    regular: dict[bytes, int] = {}
    fallback: dict[bytes, int] = {}
    ambiguous: set[bytes] = set()
    for id_, data, is_fallback in _tokens(tokenizer, fix):
        if is_fallback:
            fallback[data] = id_
        elif REPLACEMENT not in data:
            if data in regular:
                ambiguous.add(data)
            regular[data] = id_
    # Single-byte tokens encode only what no regular token can, so a regular token has precedence.
    return {data: id_ for data, id_ in (fallback | regular).items() if data not in ambiguous}


def bytes_of_ids(tokenizer: Any, size: int, fix: str = "use one of bytes or of sentence pieces") -> list[bytes | None]:
    """The bytes of text that each id below `size` adds; None for special tokens and for ids without a token.

    `size` may be the width of a model's logits, which often exceeds the tokenizer. Raises InputError like
    ids_by_bytes.
    """
    texts: list[bytes | None] = [None] * size
    special = {id_ for id_, token in tokenizer.backend_tokenizer.get_added_tokens_decoder().items() if token.special}
    special |= set(tokenizer.all_special_ids)
    for id_, data, _ in _tokens(tokenizer, fix):
        if id_ < size and id_ not in special:
            texts[id_] = data
    return texts


def byte_level_alphabet() -> dict[str, int]:
    """The byte of each character of a byte-level vocabulary.

    Printable characters of Latin-1 stand for themselves; those from U+0100 on, for the other bytes in order.
    """
    printable = [byte for byte in range(256) if 0x21 <= byte <= 0x7E or (byte >= 0xA1 and byte != 0xAD)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


def _tokens(tokenizer: Any, fix: str) -> Iterator[tuple[int, bytes, bool]]:
    """Id and bytes of every token that has bytes, and whether it is a single-byte fallback."""
    backend = tokenizer.backend_tokenizer
    kinds = set(_decoder_kinds(json.loads(backend.to_str())["decoder"]))
    added = set(backend.get_added_tokens_decoder())
    if "ByteLevel" in kinds:
        alphabet = byte_level_alphabet()
    elif kinds & {"ByteFallback", "Metaspace"}:
        alphabet = None
    else:
        kind = ", ".join(sorted(kinds)) or "no decoder"
        raise InputError(f"tokenizer {tokenizer.name_or_path!r}: its tokens have no bytes of their own ({kind}); {fix}")
    for token, id_ in tokenizer.get_vocab().items():
        if alphabet is None and id_ not in added and (byte := BYTE_TOKEN.fullmatch(token)):
            yield id_, bytes.fromhex(byte[1]), True
        elif data := token.encode() if id_ in added else _token_bytes(token, alphabet):
            yield id_, data, False


def _token_bytes(token: str, alphabet: Mapping[str, int] | None) -> bytes | None:
    """Bytes of a token, or None. alphabet: the byte of each character of a byte-level vocabulary, otherwise None."""
    if alphabet is not None:
        return bytes(alphabet[c] for c in token) if all(c in alphabet for c in token) else None
    return token.replace(SPACE_MARK, " ").encode()


def _decoder_kinds(decoder: Any) -> Iterator[str]:
    for step in (decoder or {}).get("decoders", [decoder] if decoder else []):
        yield step["type"]
