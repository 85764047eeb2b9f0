"""Small JSON documents that detect every changed byte: canonical text with a checksum of itself.

Every document says which format it has, and which features a reader must know. Other fields that a reader does not know
are optional: a later version may add them, and this one ignores them.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from cache.errors import IntegrityError, NewerFormatError

FORMAT_VERSION = 1
# Features that a document may require and that this version knows. Format 1 began with none.
KNOWN_FEATURES: frozenset[str] = frozenset()
CHECKSUM_KEY = "sha256"


def canonical_json(value: object) -> str:
    """Canonical JSON text of `value`: sorted keys, no spaces, ASCII, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(value: object) -> str:
    """SHA-256 of the canonical JSON of `value`, in hexadecimal."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def encode_document(body: Mapping[str, Any], requires: Iterable[str] = ()) -> bytes:
    """Encode a document with its format, the features that it requires, and the checksum of all that."""
    whole = {**body, "format": FORMAT_VERSION, "requires": sorted(requires)}
    return (canonical_json({**whole, CHECKSUM_KEY: digest(whole)}) + "\n").encode()


def decode_document(data: bytes, name: str, required: Sequence[str] = ()) -> dict[str, Any]:
    """Body of a document of encode_document, with `format` and `requires`. required: fields that it must have.

    Raises IntegrityError, starting with `name`, if any byte differs or a field is missing, and NewerFormatError if the
    document needs a newer version.
    """
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
    require_readable(body, name)
    require_fields(body, required, name)
    return dict(body)


def require_readable(body: Mapping[str, Any], name: str) -> None:
    """Raise NewerFormatError, starting with `name`, if a document has a later format or requires an unknown feature.

    Documents inside another file may leave both fields out. For attributes of Zarr groups, too.
    """
    version = body.get("format", FORMAT_VERSION)
    if version != FORMAT_VERSION or isinstance(version, bool):
        raise NewerFormatError(f"{name}: has format {version!r}; this version of logitbank reads format 1; update it")
    requires = body.get("requires", [])
    if not isinstance(requires, list):
        raise IntegrityError(f"{name}: field 'requires' must be a list of names, not {requires!r}")
    unknown = sorted(str(feature) for feature in requires if feature not in KNOWN_FEATURES)
    if unknown:
        raise NewerFormatError(
            f"{name}: requires the feature {unknown[0]!r}, which this version of logitbank does not know; update it"
        )


def require_fields(body: Mapping[str, Any], names: Sequence[str], name: str) -> None:
    """Raise IntegrityError, starting with `name`, if a document lacks one of these fields."""
    missing = [field for field in names if field not in body]
    if missing:
        raise IntegrityError(f"{name}: has no field {missing[0]!r}")


def known_fields(body: Mapping[str, Any], kind: type[Any]) -> dict[str, Any]:
    """The values of a document that are fields of a dataclass."""
    return {item.name: body[item.name] for item in fields(kind) if item.name in body}


def write_json(path: Path, value: object) -> None:
    """Write a JSON file atomically: readers see the complete file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_text(json.dumps(value, indent=1, default=str))
    draft.replace(path)
