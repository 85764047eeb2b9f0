"""One part: the files of a unit of records, and the place that tells a reader what they are. Knows no commits."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from cache.parts import layout
from cache.parts.layout import PartCounts, Profile
from cache.parts.zarr_shard import CHECKSUM_BYTES, chunk_checksums, encode_array, group_metadata
from cache.rows.codebook import Codebook
from cache.rows.codec import encode_logprobs, encode_rows
from cache.rows.kernels import FIRST
from cache.rows.record import Record
from cache.rows.sparse_targets import concatenate
from cache.rows.spec import StoreSpec


@dataclass(frozen=True, slots=True)
class PartPlace:
    """Where a part is and what it looks like: enough to read it without opening a file that describes it.

    codebook: digest of the codebook, "" where codes are ids. sizes, seals: length of each array's shard in bytes, and
    the crc32c of the index at its end, by the array's name; of `checksums`, of its numbers.
    """

    path: str
    profile: Profile
    codebook: str
    counts: PartCounts
    sizes: dict[str, int]
    seals: dict[str, int]


@dataclass(frozen=True, slots=True)
class EncodedPart:
    """The files of a part by their path inside it, and where it will be."""

    files: dict[str, bytes]
    place: PartPlace


def encode_part(
    path: str, records: Sequence[Record], spec: StoreSpec, codebook: Codebook, digest: str, profile: Profile
) -> EncodedPart:
    """The files of a part at `path` that holds valid `records`. digest: the codebook's, "" where codes are ids."""
    targets = concatenate([record.targets for record in records])
    tokens = np.concatenate([record.tokenized.tokens for record in records])
    packed = encode_rows(targets, tokens, spec.targets, codebook)
    descriptions = [_describe(record) for record in records]
    chunk = layout.TOKEN_CHUNK
    counts = PartCounts(
        examples=len(records),
        tokens=len(tokens),
        description_bytes=sum(map(len, descriptions)),
        first=len(packed.first_code),
        rest=len(packed.rest_code),
        pairs=len(packed.rest_gap),
        sampled=len(packed.sampled_code),
        levels=packed.levels,
    )
    values: dict[str, npt.NDArray[Any]] = {
        layout.TOKEN_STARTS: _starts([len(record.tokenized.tokens) for record in records]),
        layout.DESCRIPTION_STARTS: _starts([len(text) for text in descriptions]),
        layout.DESCRIPTIONS: np.frombuffer(b"".join(descriptions), np.uint8),
        layout.TOKEN_IDS: tokens,
        layout.SEGMENTS: np.concatenate([record.tokenized.segments for record in records]),
        layout.EXACT: packed.exact,
        layout.SAMPLED: packed.sampled,
        layout.TAIL: packed.tail,
        layout.SURPRISAL: encode_logprobs(np.concatenate([record.token_logprobs for record in records])),
        layout.FIRST_STARTS: _chunk_starts(np.minimum(packed.exact, FIRST), chunk),
        layout.REST_STARTS: _chunk_starts(np.maximum(packed.exact - FIRST, 0), chunk),
        layout.PAIR_STARTS: _chunk_starts((np.maximum(packed.exact - FIRST, 0) + 1) // 2, chunk),
        layout.SAMPLED_STARTS: _chunk_starts(packed.sampled, chunk),
        layout.FIRST_CODES: packed.first_code,
        layout.FIRST_GAPS: packed.first_gap,
        layout.REST_CODES: packed.rest_code,
        layout.REST_GAPS: packed.rest_gap,
        layout.SAMPLED_CODES: packed.sampled_code,
        layout.SAMPLED_DRAWS: packed.sampled_draws,
        layout.GRID: spec.targets.grid[: packed.levels],
    }
    # Absent where no row of the unit has a target.
    none = np.full((len(tokens), len(spec.targets.temperatures)), np.nan, np.float32)
    values[layout.ENTROPY] = np.full(len(tokens), np.nan, np.float32) if targets.entropy is None else targets.entropy
    values[layout.LOG_NORMALIZERS] = none if targets.log_normalizers is None else targets.log_normalizers
    files = {"zarr.json": group_metadata(layout.part_attributes(counts, spec.targets, digest, profile))}
    sizes, seals, checksums = {}, {}, b""
    for name, array in layout.part_arrays(counts, spec.targets, codebook, profile).items():
        last = name == layout.CHECKSUMS
        data = encode_array(array, np.frombuffer(checksums, "<u4") if last else values[name])
        files[f"{name}/zarr.json"] = array.metadata()
        files[f"{name}/{array.path}"] = data
        # The checksums vouch for every chunk of the part, and their seal for them.
        sizes[name], seals[name] = len(data), seal_of(checksums if last else data[-array.index_bytes : -CHECKSUM_BYTES])
        checksums += b"" if last else chunk_checksums(array, data)
    for folder in sorted({name.partition("/")[0] for name in sizes if "/" in name}):
        files[f"{folder}/zarr.json"] = group_metadata({})
    return EncodedPart(files, PartPlace(path, profile, digest, counts, sizes, seals))


def seal_of(body: bytes) -> int:
    """The crc32c of bytes without their own checksum: with it, every sum would be the same."""
    return int(google_crc32c.value(body))


def _starts(lengths: Sequence[int]) -> npt.NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.asarray(lengths, np.int64))])


def _chunk_starts(counts: npt.NDArray[np.int64], chunk: int) -> npt.NDArray[np.int64]:
    """Entries before each chunk of tokens, and of all, int64 [chunks + 1]."""
    before = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    edges = np.minimum(np.arange(max(1, -(-len(counts) // chunk)) + 1) * chunk, len(counts))
    return np.asarray(before[edges])


def _describe(record: Record) -> bytes:
    fields = {"key": record.key, "origin": record.tokenized.origin, "example": record.tokenized.example.to_document()}
    return json.dumps(fields, ensure_ascii=False, sort_keys=True).encode()
