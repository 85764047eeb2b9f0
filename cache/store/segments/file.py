"""A segment as a file: a Zarr group in one zip file, like a part. It is read as a whole, or a part of it by ranges."""

import hashlib
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from cache.errors import IntegrityError
from cache.parts.layout import PROFILES
from cache.parts.zarr_shard import ArraySpec, Shard, decode_index, encode_array
from cache.parts.zarr_zip import EncodedZip, ZarrGroup, encode_zip, root_of_tail
from cache.storage.base import Storage
from cache.store.segments.columns import EXAMPLE_COLUMNS, UNIT_COLUMNS, Segment, hex_rows, require_columns
from cache.store.segments.keys import KEY, KEY_BYTES, Array, Keys, is_among

KIND = "logitbank.index"
SORTED, FENCE, RANK = "keys/sorted", "keys/fence", "example/rank"
# Keys that are read together for a look-up. The fence has the first of each.
KEY_CHUNK = 1024
_BYTES = {"name": "name_byte", "attempt": "attempt_byte", "commit": "hash_byte"}


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """What a snapshot says of a segment: SHA-256 of its file, its bytes and their crc32c, where the tail and the entry
    of the root's zarr.json begin, crc32c of the tail, numbers of units and examples."""

    sha256: str
    bytes: int
    crc32c: int
    tail: int
    root: int
    tail_crc32c: int
    units: int
    examples: int

    @property
    def path(self) -> str:
        """Name of the file."""
        return segment_path(self.sha256)


def segment_path(sha256: str) -> str:
    """Name of the file of a segment."""
    return f"index/{sha256}.zarr.zip"


def encode_segment(segment: Segment) -> EncodedZip:
    """The file of a segment. Equal segments give equal bytes: nothing is compressed but the JSON."""
    segment = segment.normal()
    units, examples = len(segment), len(segment.keys)
    sorted_keys = segment.keys.sorted.view(np.uint8).reshape(examples, KEY_BYTES)
    values: dict[str, tuple[npt.NDArray[Any], tuple[str, ...], int]] = {}
    for name, (_, width) in UNIT_COLUMNS.items():
        dimensions: tuple[str, ...] = ("unit", _BYTES[name]) if width > 1 else ("unit",)
        values[f"unit/{name}"] = (segment.units[name], dimensions, units)
    for name in EXAMPLE_COLUMNS:
        values[f"example/{name}"] = (segment.examples[name], ("example",), examples)
    values[RANK] = (segment.keys.rank, ("example",), examples)
    values[SORTED] = (sorted_keys, ("place", "key_byte"), KEY_CHUNK)
    values[FENCE] = (sorted_keys[::KEY_CHUNK], ("chunk", "key_byte"), examples)
    arrays = {}
    for name, (column, dimensions, chunk) in values.items():
        length = max(1, min(chunk, len(column)))
        spec = ArraySpec(column.shape, str(column.dtype), length, "raw", dimensions)
        arrays[name] = (spec, encode_array(spec, column))
    attributes = {
        "kind": KIND,
        "format": 1,
        "requires": [],
        "profiles": list(PROFILES),
        "codebooks": list(segment.codebooks),
        "origins": list(segment.origins),
        "counts": {"units": units, "examples": examples},
    }
    return encode_zip(arrays, attributes, (FENCE,))


def decode_segment(data: bytes, info: SegmentInfo, what: str) -> Segment:
    """The segment in a file. Raises IntegrityError, starting with `what`, if it is not the one of `info`."""
    # A crc32c would be the same for two shards of one length, because each ends in its own.
    if len(data) != info.bytes or hashlib.sha256(data).hexdigest() != info.sha256:
        raise IntegrityError(f"{what}: altered or truncated: its content does not match its checksum")
    group = root_of_tail(data[info.tail :], info.root - info.tail, what)
    group.require_kind(KIND)

    def column(name: str) -> npt.NDArray[Any]:
        offset, size = group.position(name)
        return group.decode(name, data[offset : offset + size])

    profiles, codebooks, origins = group.require("profiles", "codebooks", "origins")
    units = {name: column(f"unit/{name}") for name in UNIT_COLUMNS}
    examples = {name: column(f"example/{name}") for name in EXAMPLE_COLUMNS}
    rank, keys = column(RANK), column(SORTED)
    require_columns(units, f"{what}/unit")
    require_columns({**examples, "rank": rank, "keys": keys}, f"{what}/example")
    if list(profiles) != list(PROFILES):
        known = [PROFILES.index(name) if name in PROFILES else -1 for name in profiles]
        units["profile"] = np.array(known, np.int16)[units["profile"]]
        if (units["profile"] < 0).any():
            raise IntegrityError(f"{what}: has a profile of {', '.join(profiles)} that this version does not know")
    return Segment(units, examples, Keys(None, _as_keys(keys), rank), tuple(codebooks), tuple(origins))


class SegmentFile:
    """A segment of which only names and some keys are read. Raises IntegrityError if what it reads is damaged."""

    def __init__(self, storage: Storage, info: SegmentInfo) -> None:
        self.info = info
        self._storage = storage
        self._what = f"{storage}/{info.path}"
        length = info.bytes - info.tail
        (tail,) = storage.read_ranges([(info.path, info.tail, length)])
        if len(tail) != length or google_crc32c.value(tail) != info.tail_crc32c:
            raise IntegrityError(f"{self._what}: altered or truncated: its tail does not match its checksum")
        self._group: ZarrGroup = root_of_tail(tail, info.root - info.tail, self._what)
        self._group.require_kind(KIND)
        offset, size = self._group.position(FENCE)
        self._fence = _as_keys(self._group.decode(FENCE, tail[offset - info.tail :][:size]))

    def names(self) -> list[str]:
        """Names of the units."""
        offset, size = self._group.position("unit/name")
        (data,) = self._storage.read_ranges([(self.info.path, offset, size)])
        return hex_rows(self._group.decode("unit/name", data))

    def keys(self) -> Array:
        """All keys, sorted. Reads 16 bytes for each, and nothing else of the segment."""
        offset, size = self._group.position(SORTED)
        (data,) = self._storage.read_ranges([(self.info.path, offset, size)])
        return _as_keys(self._group.decode(SORTED, data))

    def contains(self, keys: Array) -> npt.NDArray[np.bool_]:
        """Whether the segment has each of these keys; bool [keys]. Reads only where they would be."""
        if not len(self._fence) or not len(keys):
            return np.zeros(len(keys), bool)
        spec = self._group.spec(SORTED)
        offset, size = self._group.position(SORTED)
        end = offset + size
        (index,) = self._storage.read_ranges([(self.info.path, end - spec.index_bytes, spec.index_bytes)])
        bounds = decode_index(spec, index, f"{self._what}/{SORTED}")
        shard = Shard(spec, bounds, f"{self._what}/{SORTED}")
        chunks = np.searchsorted(self._fence, keys, side="right") - 1  # -1: before the first key
        order = np.argsort(chunks, kind="stable")
        needed, starts = np.unique(chunks[order], return_index=True)
        if len(needed) > len(self._fence) // 2:
            return is_among(keys, self.keys())
        mine = np.split(order, starts[1:])  # of each needed chunk, the places of its keys
        wanted = [(number, places) for number, places in zip(needed.tolist(), mine, strict=True) if number >= 0]
        ranges = [(self.info.path, offset + bounds[i], bounds[i + 1] - bounds[i]) for i, _ in wanted]
        found = np.zeros(len(keys), bool)
        for (number, places), data in zip(wanted, self._storage.read_ranges(ranges), strict=True):
            values = shard.decode(data, number, number + 1)
            here = _as_keys(values[: max(0, spec.shape[0] - number * spec.chunk)])
            found[places] = is_among(keys[places], here)
        return found


def _as_keys(values: npt.NDArray[Any]) -> Array:
    """uint8 [n, 16] as void16 [n]."""
    return np.ascontiguousarray(values).view(KEY).reshape(len(values))
