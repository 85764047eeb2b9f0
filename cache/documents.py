"""Small JSON files that notice any changed byte: canonical text plus a checksum of itself."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cache.errors import IntegrityError

CHECKSUM = "sha256"


def canonical_json(value: object) -> str:
    """The one spelling of `value`: sorted keys, no spaces, ASCII, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(value: object) -> str:
    """SHA-256 of the canonical JSON of `value`, in hexadecimal."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def encode_document(body: Mapping[str, Any]) -> bytes:
    """Bytes of a document that carries the checksum of its own body."""
    return (canonical_json({**body, CHECKSUM: digest(body)}) + "\n").encode()


def decode_document(data: bytes, name: str) -> dict[str, Any]:
    """Body of a sealed document. Raises IntegrityError naming `name` if one byte differs from what was sealed."""
    try:
        text = data.decode("ascii")
        body = json.loads(text)
        sealed = body.pop(CHECKSUM)
        # The text without its checksum is the text that was hashed: no need to spell the body again.
        pair = f'"{CHECKSUM}":"{sealed}"'
        unsealed = text.replace(f",{pair}", "", 1) if f",{pair}" in text else text.replace(f"{pair},", "", 1)
        intact = unsealed.endswith("}\n") and hashlib.sha256(unsealed[:-1].encode()).hexdigest() == sealed
    except (ValueError, KeyError, AttributeError, TypeError):
        intact = False
    if not intact:
        raise IntegrityError(f"{name}: altered or truncated: its content does not match its checksum")
    return dict(body)


def write_json(path: Path, value: object) -> None:
    """Write a JSON file that appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_text(json.dumps(value, indent=1, default=str))
    draft.replace(path)
