"""Small JSON documents that detect every changed byte: canonical text with a checksum of itself."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cache.errors import IntegrityError

CHECKSUM_KEY = "sha256"


def canonical_json(value: object) -> str:
    """Canonical JSON text of `value`: sorted keys, no spaces, ASCII, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(value: object) -> str:
    """SHA-256 of the canonical JSON of `value`, in hexadecimal."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def encode_document(body: Mapping[str, Any]) -> bytes:
    """Encode a document together with the checksum of its body."""
    return (canonical_json({**body, CHECKSUM_KEY: digest(body)}) + "\n").encode()


def decode_document(data: bytes, name: str) -> dict[str, Any]:
    """Body of a document of encode_document. Raises IntegrityError, starting with `name`, if any byte differs."""
    try:
        text = data.decode("ascii")
        body = json.loads(text)
        checksum = body.pop(CHECKSUM_KEY)
        # The text without the checksum is the text that was hashed, so the body need not be encoded again.
        pair = f'"{CHECKSUM_KEY}":"{checksum}"'
        hashed = text.replace(f",{pair}", "", 1) if f",{pair}" in text else text.replace(f"{pair},", "", 1)
        is_intact = hashed.endswith("}\n") and hashlib.sha256(hashed[:-1].encode()).hexdigest() == checksum
    except (ValueError, KeyError, AttributeError, TypeError):
        is_intact = False
    if not is_intact:
        raise IntegrityError(f"{name}: altered or truncated: its content does not match its checksum")
    return dict(body)


def write_json(path: Path, value: object) -> None:
    """Write a JSON file atomically: readers see the complete file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_text(json.dumps(value, indent=1, default=str))
    draft.replace(path)
