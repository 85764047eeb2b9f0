"""Write stores as a later version of this package may: with more fields, columns and arrays everywhere."""

import json
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np

from cache import json_documents
from cache.json_documents import CHECKSUM_KEY, canonical_json, digest, encode_document
from cache.parts import zarr_zip
from cache.parts.description import describe
from cache.parts.zarr_metadata import array_document
from cache.parts.zarr_shard import ArraySpec, encode_array
from cache.parts.zarr_zip import EncodedZip, encode_zip
from cache.rows.record import Record
from cache.rows.spec import StoreSpec
from cache.store import root_group

ADDED = {"colour": "red", "weather": {"width": 8, "names": ["a"]}}
FEATURE = "braids"


def later_spec(spec: StoreSpec) -> StoreSpec:
    return replace(spec, unknown={"licence": "none", "targets": {"beams": 4}})


def with_more_fields(body: Mapping[str, Any]) -> dict[str, Any]:
    """Fields added at the top, and wherever a dict or a list of dicts describes one thing."""
    more = {**body, **ADDED}
    for name in ("part", "counts"):
        if name in more:
            more[name] = {**more[name], **ADDED}
    if "examples" in more and isinstance(more["examples"], dict):
        count = len(more["examples"]["key"])
        more["examples"] = {**more["examples"], "shade": [0.5] * count}
    if "segments" in more:
        more["segments"] = [{**segment, **ADDED} for segment in more["segments"]]
    return more


@contextmanager
def later_writer(requires: Collection[str] = ()) -> Iterator[None]:
    """What is written meanwhile has more of everything. Every file requires these features, which are known meanwhile.

    Arrays are added to the tail and before it, of a codec that this version does not know.
    """

    def encode_more(body: Mapping[str, Any], own: Collection[str] = ()) -> bytes:
        return encode_document(with_more_fields(body), {*own, *requires})

    def describe_more(record: Record) -> bytes:
        fields = json.loads(describe(record))
        return canonical_json({**fields, **ADDED, "example": {**fields["example"], "mood": 3}}).encode()

    def document_of(spec: ArraySpec) -> dict[str, Any]:
        document = {**array_document(spec), "attributes": ADDED}
        if spec.dimensions == ("later",):
            document["codecs"][0]["configuration"]["codecs"][0] = {"name": "quantum"}
        return document

    def zip_more(arrays: Mapping[str, Any], attributes: Mapping[str, Any], tail: Collection[str] = ()) -> EncodedZip:
        spec = ArraySpec((7,), "uint16", 3, "raw", ("later",))
        extra = (spec, encode_array(spec, np.arange(7)))
        more = {**arrays, "later/large": extra, "later/small": extra}
        return encode_zip(more, {**attributes, **ADDED, "requires": list(requires)}, (*tail, "later/small"))

    own_attributes = root_group._attributes

    def root_attributes(fingerprint: str) -> dict[str, Any]:
        body = {**own_attributes(fingerprint), **ADDED, "requires": sorted(requires)}
        del body[CHECKSUM_KEY]
        return {**body, CHECKSUM_KEY: digest(body)}

    replaced = {"encode_document": encode_more, "describe": describe_more, "encode_zip": zip_more}
    originals = {"encode_document": encode_document, "describe": describe, "encode_zip": encode_zip}
    with (
        patch.object(zarr_zip, "array_document", document_of),
        patch.object(root_group, "_attributes", root_attributes),
        patch.object(json_documents, "KNOWN_FEATURES", frozenset(requires)),
    ):
        users = [
            (module, name)
            for module in list(sys.modules.values())
            for name, original in originals.items()
            if module.__name__.startswith("cache.") and vars(module).get(name) is original
        ]
        try:
            for module, name in users:
                setattr(module, name, replaced[name])
            yield
        finally:
            for module, name in users:
                setattr(module, name, originals[name])
