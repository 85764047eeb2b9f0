"""Token ids by the bytes they stand for, as services name them."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from cache.errors import InputError

SPACE_MARK = "▁"
BYTE_TOKEN = re.compile("<0x([0-9A-Fa-f]{2})>")
# What decoders put for bytes that are no whole character: it tells nothing of them.
REPLACEMENT = "\N{REPLACEMENT CHARACTER}".encode()


def ids_by_bytes(tokenizer: Any) -> dict[bytes, int]:
    """The id of each byte string that exactly one token of a fast tokenizer stands for.

    Raises InputError for a tokenizer whose tokens stand for no bytes of their own, such as one of word pieces.
    """
    backend = tokenizer.backend_tokenizer
    kinds = set(_decoder_kinds(json.loads(backend.to_str())["decoder"]))
    added = set(backend.get_added_tokens_decoder())
    if "ByteLevel" in kinds:
        alphabet = byte_level_alphabet()
    elif kinds & {"ByteFallback", "Metaspace"}:
        alphabet = None
    else:
        kind = ", ".join(sorted(kinds)) or "no decoder"
        raise InputError(
            f"teacher.tokenizer {tokenizer.name_or_path!r}: its tokens stand for no bytes ({kind}); set "
            "engine.endpoint.top_logprobs = 0"
        )
    found: dict[bytes, int] = {}
    fallback: dict[bytes, int] = {}
    ambiguous: set[bytes] = set()
    for token, id_ in tokenizer.get_vocab().items():
        if alphabet is None and id_ not in added and (byte := BYTE_TOKEN.fullmatch(token)):
            fallback[bytes.fromhex(byte[1])] = id_
            continue
        data = token.encode() if id_ in added else _token_bytes(token, alphabet)
        if not data or REPLACEMENT in data:
            continue
        if data in found:
            ambiguous.add(data)
        found[data] = id_
    # Tokens of one byte are for what no other token has, and a model has never seen them used otherwise.
    return {data: id_ for data, id_ in (fallback | found).items() if data not in ambiguous}


def byte_level_alphabet() -> dict[str, int]:
    """The byte of each character of a byte-level vocabulary.

    Printable characters of Latin-1 stand for themselves; those from U+0100 on, for the other bytes in order.
    """
    printable = [byte for byte in range(256) if 0x21 <= byte <= 0x7E or (byte >= 0xA1 and byte != 0xAD)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


def _token_bytes(token: str, alphabet: Mapping[str, int] | None) -> bytes | None:
    """Bytes of a vocabulary's token, None where it has none. alphabet: of a byte-level one, else None."""
    if alphabet is not None:
        return bytes(alphabet[c] for c in token) if all(c in alphabet for c in token) else None
    return token.replace(SPACE_MARK, " ").encode()


def _decoder_kinds(decoder: Any) -> Iterator[str]:
    for step in (decoder or {}).get("decoders", [decoder] if decoder else []):
        yield step["type"]
