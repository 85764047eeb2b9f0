"""The JSON of Zarr v3: of one array with one shard, of a group, and consolidated, of a group with all that is in it."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from cache.errors import IntegrityError
from cache.json_documents import canonical_json
from cache.parts.zarr_shard import PCODEC_LEVEL, ZSTD_LEVEL, ArraySpec, Codec

# Numbers of a chunk, at most: a reader needs memory for a whole one.
MAX_CHUNK = 1 << 28
DTYPES = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float32", "float64")
_LITTLE: dict[str, Any] = {"name": "bytes", "configuration": {"endian": "little"}}
_CRC32C = {"name": "crc32c"}
# What a writer uses. A reader accepts any configuration of these codecs.
_WRITTEN: dict[Codec, list[dict[str, Any]]] = {
    "pcodec": [
        {
            "name": "numcodecs.pcodec",
            "configuration": {"level": PCODEC_LEVEL, "mode_spec": "classic", "delta_spec": "none"},
        },
    ],
    "pcodec_sorted": [{"name": "numcodecs.pcodec", "configuration": {"level": PCODEC_LEVEL}}],
    "zstd": [_LITTLE, {"name": "zstd", "configuration": {"level": ZSTD_LEVEL, "checksum": False}}],
    "raw": [_LITTLE],
}
# The codec of each chain of names that a reader decodes, after the checksum is removed.
_READ: dict[tuple[str, ...], Codec] = {
    ("numcodecs.pcodec",): "pcodec",
    ("bytes", "zstd"): "zstd",
    ("bytes",): "raw",
}


def array_document(spec: ArraySpec) -> dict[str, Any]:
    """Content of an array's zarr.json."""
    rest = list(spec.shape[1:])
    names = {"dimension_names": list(spec.dimensions)} if spec.dimensions else {}
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(spec.shape),
        "data_type": spec.dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [spec.chunks * spec.chunk, *rest]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": "NaN" if spec.dtype.startswith("float") else int(spec.fill),
        "codecs": [
            {
                "name": "sharding_indexed",
                "configuration": {
                    "chunk_shape": [spec.chunk, *rest],
                    "codecs": [*_WRITTEN[spec.codec], _CRC32C],
                    "index_codecs": [_LITTLE, _CRC32C],
                    "index_location": "end",
                },
            }
        ],
        "attributes": {},
        **names,
    }


def group_document(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Content of a group's zarr.json."""
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}


def consolidated_document(attributes: Mapping[str, Any], members: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Content of the zarr.json of a group, with the content of those of all arrays and groups in it, by path."""
    consolidated = {"kind": "inline", "must_understand": False, "metadata": dict(members)}
    return {**group_document(attributes), "consolidated_metadata": consolidated}


def metadata_bytes(document: Mapping[str, Any]) -> bytes:
    """A document as the bytes of a zarr.json."""
    return (canonical_json(document) + "\n").encode()


def array_spec(document: Mapping[str, Any], what: str) -> ArraySpec:
    """The array that a zarr.json describes. Everything but the order of the bytes of a number is taken from it.

    Raises IntegrityError, starting with `what`, if it is not an array of one shard, or if it has a codec or a type that
    this version does not know: these are named.
    """
    try:
        shape, dtype = tuple(map(int, document["shape"])), document["data_type"]
        shard = document["chunk_grid"]["configuration"]["chunk_shape"]
        (outer,) = document["codecs"]
        if outer["name"] != "sharding_indexed":
            raise IntegrityError(f"{what}: codec {outer['name']!r} where 'sharding_indexed' is expected; {_NEWER}")
        inner = outer["configuration"]
        chunk, *rest = map(int, inner["chunk_shape"])
        names = [codec["name"] for codec in inner["codecs"]]
        index = [codec["name"] for codec in inner["index_codecs"]]
        dimensions = tuple(document.get("dimension_names") or ())
        is_plain = (
            document["node_type"] == "array"
            and inner.get("index_location", "end") == "end"
            and rest == list(shape[1:])
            and 0 < chunk * math.prod(rest) <= MAX_CHUNK
            and min(shape) >= 0
            and int(shard[0]) >= shape[0]
            and list(shard[1:]) == rest
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise IntegrityError(f"{what}: its zarr.json does not describe an array: {error!r}") from error
    for each in [*names, *index]:
        if not isinstance(each, str) or each not in _KNOWN:
            raise IntegrityError(f"{what}: codec {each!r} is not known; {_NEWER}")
    codec = _READ.get(tuple(names[:-1]))
    if codec is None or names[-1] != "crc32c" or index != ["bytes", "crc32c"]:
        raise IntegrityError(f"{what}: codecs {names} with an index of {index} are not known; {_NEWER}")
    if dtype not in DTYPES:
        raise IntegrityError(f"{what}: type {dtype!r} is not known; {_NEWER}")
    if not is_plain:
        raise IntegrityError(f"{what}: is not an array of one shard with chunks along its first axis")
    return ArraySpec(shape, np.dtype(dtype).name, chunk, codec, dimensions)


def chunk_count(document: Mapping[str, Any], what: str) -> int:
    """Number of inner chunks of an array, of which nothing else need be known. At least one."""
    try:
        (outer,) = document["codecs"]
        return max(1, -(-int(document["shape"][0]) // int(outer["configuration"]["chunk_shape"][0])))
    except (KeyError, TypeError, ValueError, IndexError, ZeroDivisionError) as error:
        raise IntegrityError(f"{what}: its zarr.json does not describe an array: {error!r}") from error


_NEWER = "a newer logitbank wrote it"
_KNOWN = {name for chain in _READ for name in chain} | {"crc32c"}
