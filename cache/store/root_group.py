"""The group at the root of a store: `zarr.json`, whose attributes say what the store is and where everything lies.

No reader of this project needs it. It is for people and for tools that know Zarr.
"""

import json
from typing import Any

from cache.errors import IntegrityError
from cache.json_documents import CHECKSUM_KEY, FORMAT_VERSION, digest
from cache.parts.zarr_metadata import group_document, metadata_bytes
from cache.storage.base import Storage

ROOT_GROUP, KIND = "zarr.json", "logitbank.store"
WHERE = {
    "spec.json": "what was captured, and its fingerprint",
    "parts/<unit>/<attempt>.zarr.zip": "the records of a unit: a Zarr group; open it with zarr.storage.ZipStore",
    "codebooks/<digest>.zarr.zip": "which ids occur together: a Zarr group",
    "commits/<unit>.json": "the part of each unit that counts",
    "index/<sha256>.zarr.zip": "a segment of the index: columns of units and examples, a Zarr group",
    "snapshots/<number>.json": "the segments of the index at one time",
    "tokenizer.json": "where the teacher's tokenizer is",
    "quarantine/<key>.json": "an example that could not be captured, and why",
    "forgotten/<key>.json": "an example that must not be kept",
    "withdrawn/<unit>.json": "a unit in whose place another one counts",
}


def create_root_group(storage: Storage, fingerprint: str) -> None:
    """Write the group, unless the store has it."""
    storage.create(ROOT_GROUP, _content(_attributes(fingerprint)))


def check_root_group(storage: Storage, fingerprint: str) -> None:
    """Raise IntegrityError if the group is missing, altered or of another store. A later version may add attributes."""
    what = f"{storage}/{ROOT_GROUP}"
    data = storage.read(ROOT_GROUP)
    try:
        attributes = json.loads(data)["attributes"]
        body = {name: value for name, value in attributes.items() if name != CHECKSUM_KEY}
        is_intact = data == _content(attributes) and attributes[CHECKSUM_KEY] == digest(body)
    except (ValueError, KeyError, TypeError, AttributeError):
        is_intact = False
    if not is_intact:
        raise IntegrityError(f"{what}: altered or truncated: its content does not match its checksum")
    if (body.get("kind"), body.get("fingerprint")) != (KIND, fingerprint):
        raise IntegrityError(f"{what}: is the group of another store")


def _attributes(fingerprint: str) -> dict[str, Any]:
    body = {"kind": KIND, "format": FORMAT_VERSION, "requires": [], "fingerprint": fingerprint, "where": WHERE}
    return {**body, CHECKSUM_KEY: digest(body)}


def _content(attributes: dict[str, Any]) -> bytes:
    return metadata_bytes(group_document(attributes))
