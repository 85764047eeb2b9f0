"""Open a part with one read of the end of its file: attributes, positions and checksums of all chunks, small arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import google_crc32c
import numpy.typing as npt

from cache.errors import IntegrityError
from cache.parts import layout
from cache.parts.part import PartInfo
from cache.parts.zarr_shard import CHECKSUM_BYTES, Shard, checksum
from cache.parts.zarr_zip import ZarrGroup, root_of_tail
from cache.rows.spec import TargetSpec
from cache.storage.base import RangeReader


@dataclass(frozen=True, slots=True)
class OpenedPart:
    """What is known of a part before any of its large arrays is read.

    shards: of the arrays that are read in pieces. small: the others that were requested, decoded. codebook: digest of
    the codebook, "" if codes are ids. bands: first rank of each band. chunk_tokens: tokens between two of
    `chunks/*_start`.
    """

    group: ZarrGroup
    shards: dict[str, Shard]
    small: dict[str, npt.NDArray[Any]]
    codebook: str
    bands: tuple[int, ...]
    chunk_tokens: int


def open_part(storage: RangeReader, info: PartInfo, targets: TargetSpec) -> OpenedPart:
    """Read and check the tail of a part whose rows have these targets.

    Raises IntegrityError, with the name of the file, if it is not what was committed, or if an array is missing, and
    names a codec or a feature that this version does not know.
    """
    what = f"{storage}/{info.path}"
    (tail,) = storage.read_ranges([(info.path, info.tail, info.bytes - info.tail)])
    if len(tail) != info.bytes - info.tail:
        raise IntegrityError(f"{what}: truncated: {info.tail + len(tail)} bytes or fewer, committed with {info.bytes}")
    if google_crc32c.value(tail) != info.crc32c:
        raise IntegrityError(f"{what}: its tail is altered or is not the one that was committed")
    group = root_of_tail(tail, info.root - info.tail, what)
    group.require_kind(layout.PART_KIND)
    checked, bands, chunk_tokens, codebook = group.require("checked", "bands", "chunk_tokens", "codebook")
    (checksums,) = group.require("checksums")
    is_right = _are(str, checked) and _are(int, bands) and _are(int, [chunk_tokens]) and isinstance(checksums, dict)
    if not is_right:
        raise IntegrityError(f"{what}: 'checked', 'bands', 'chunk_tokens' and 'checksums' are not those of a part")
    if bands != sorted(set(bands)) or bool(bands) != targets.has_exact or bands[:1] not in ([], [0]):
        raise IntegrityError(f"{what}: bands of ranks {bands!r} do not increase from 0")
    large, needed = layout.needed_arrays(targets, bands)
    small = {}
    for name in (*needed, layout.CHUNK_BYTES, layout.CHECKSUMS):
        offset, size = group.position(name)
        if offset < info.tail:
            raise IntegrityError(f"{what}/{name}: is not in the tail of the file")
        small[name] = group.decode(name, tail[offset - info.tail : offset - info.tail + size])
        if checksum(small[name]) != checksums.get(name):
            raise IntegrityError(f"{what}/{name}: altered, or that of another part")
    shards = _shards(group, checked, large, small)
    return OpenedPart(group, shards, small, str(codebook), tuple(bands), int(chunk_tokens))


def _are(kind: type, values: object) -> bool:
    """Whether this is a list of values of one type."""
    return isinstance(values, list) and {*map(type, values)} <= {kind}


def _shards(
    group: ZarrGroup, checked: Sequence[str], large: Sequence[str], small: Mapping[str, npt.NDArray[Any]]
) -> dict[str, Shard]:
    """Positions and checksums of the chunks of the arrays `large`. checked: the arrays that `small` describes."""
    lengths, checksums = small[layout.CHUNK_BYTES], small[layout.CHECKSUMS].astype("<u4").tobytes()
    shards, before = {}, 0
    chunks_of = {name: group.chunks(name) for name in checked}
    if len(lengths) != sum(chunks_of.values()) or len(checksums) != CHECKSUM_BYTES * len(lengths):
        raise IntegrityError(f"{group.what}/{layout.CHUNK_BYTES}: does not describe the chunks of {', '.join(checked)}")
    for name, chunks in chunks_of.items():
        if name in large:
            offset, size = group.position(name)
            bounds = list(accumulate(lengths[before : before + chunks].tolist(), initial=offset))
            spec = group.spec(name)
            if bounds[-1] + spec.index_bytes != offset + size:
                raise IntegrityError(f"{group.what}/{name}: its chunks are not as long as its shard")
            own = checksums[CHECKSUM_BYTES * before : CHECKSUM_BYTES * (before + chunks)]
            shards[name] = Shard(spec, bounds, f"{group.what}/{name}", own)
        before += chunks
    for name in large:
        if name not in shards:
            group.position(name)  # names it if the file does not have it
            raise IntegrityError(f"{group.what}/{name}: has no checksums")
    return shards
