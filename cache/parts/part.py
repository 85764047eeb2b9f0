"""One part: the files of a unit of records, and the description with which a reader opens them. Knows no commits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from cache.parts import layout
from cache.parts.description import describe
from cache.parts.layout import PartCounts, Profile
from cache.parts.zarr_shard import CHECKSUM_BYTES, chunk_checksums, encode_array, group_metadata
from cache.rows.codebook import Codebook
from cache.rows.codec import EncodedRows, encode_logprobs, encode_rows
from cache.rows.record import Record
from cache.rows.shared_kernels import FIRST
from cache.rows.sparse_targets import SparseTargets, concatenate
from cache.rows.spec import StoreSpec, TargetSpec


@dataclass(frozen=True, slots=True)
class PartInfo:
    """Location and shape of a part. With it a reader needs no other file that describes the part.

    codebook: digest of the codebook, "" if codes are ids. sizes: bytes of each array's shard, by name of the array.
    checksums: crc32c of the index at the end of each shard; for the array `checksums`, of its numbers.
    """

    path: str
    profile: Profile
    codebook: str
    counts: PartCounts
    sizes: dict[str, int]
    checksums: dict[str, int]


@dataclass(frozen=True, slots=True)
class EncodedPart:
    """The files of a part by their path inside it, and its description."""

    files: dict[str, bytes]
    info: PartInfo


def encode_part(
    path: str, records: Sequence[Record], spec: StoreSpec, codebook: Codebook, digest: str, profile: Profile
) -> EncodedPart:
    """Encode valid `records` as a part at `path`. digest: the codebook's, "" if codes are ids."""
    targets = concatenate([record.targets for record in records])
    tokens = np.concatenate([record.tokenized.tokens for record in records])
    encoded = encode_rows(targets, tokens, spec.targets, codebook)
    descriptions = [describe(record) for record in records]
    counts = PartCounts(
        examples=len(records),
        tokens=len(tokens),
        description_bytes=sum(map(len, descriptions)),
        first=len(encoded.first_code),
        rest=len(encoded.rest_code),
        pairs=len(encoded.rest_gap),
        sampled=len(encoded.sampled_code),
        levels=encoded.levels,
    )
    values = {
        **_example_arrays(records, descriptions),
        **_row_arrays(encoded, spec.targets),
        **_optional_arrays(targets, len(tokens), spec.targets),
        layout.TOKEN_IDS: tokens,
    }
    files = {"zarr.json": group_metadata(layout.part_attributes(counts, spec.targets, digest, profile))}
    sizes, index_checksums, chunk_sums = {}, {}, b""
    for name, array in layout.part_arrays(counts, spec.targets, codebook, profile).items():
        is_checksums = name == layout.CHECKSUMS
        data = encode_array(array, np.frombuffer(chunk_sums, "<u4") if is_checksums else values[name])
        files[f"{name}/zarr.json"] = array.metadata()
        files[f"{name}/{array.path}"] = data
        sizes[name] = len(data)
        # `checksums` protects every chunk of the part; its own checksum, in the commit, protects it.
        index = data[-array.index_bytes : -CHECKSUM_BYTES]
        index_checksums[name] = crc32c_of(chunk_sums if is_checksums else index)
        chunk_sums += b"" if is_checksums else chunk_checksums(array, data)
    for folder in sorted({name.partition("/")[0] for name in sizes if "/" in name}):
        files[f"{folder}/zarr.json"] = group_metadata({})
    return EncodedPart(files, PartInfo(path, profile, digest, counts, sizes, index_checksums))


def crc32c_of(body: bytes) -> int:
    """The crc32c of bytes without their own checksum: with it, the crc32c would be the same for any bytes."""
    return int(google_crc32c.value(body))


def _example_arrays(records: Sequence[Record], descriptions: Sequence[bytes]) -> dict[str, npt.NDArray[Any]]:
    """The arrays that do not come from the rows, but for the token ids."""
    return {
        layout.TOKEN_STARTS: _starts([len(record.tokenized.tokens) for record in records]),
        layout.DESCRIPTION_STARTS: _starts([len(text) for text in descriptions]),
        layout.DESCRIPTIONS: np.frombuffer(b"".join(descriptions), np.uint8),
        layout.SEGMENTS: np.concatenate([record.tokenized.segments for record in records]),
        layout.SURPRISAL: encode_logprobs(np.concatenate([record.token_logprobs for record in records])),
    }


def _row_arrays(encoded: EncodedRows, spec: TargetSpec) -> dict[str, npt.NDArray[Any]]:
    """The arrays of the rows: counts, tails, streams, and where the streams start in each chunk of tokens."""
    in_first = np.minimum(encoded.exact, FIRST)
    in_rest = np.maximum(encoded.exact - FIRST, 0)
    chunk = layout.TOKEN_CHUNK
    return {
        layout.EXACT: encoded.exact,
        layout.SAMPLED: encoded.sampled,
        layout.TAIL: encoded.tail,
        layout.FIRST_STARTS: _chunk_starts(in_first, chunk),
        layout.REST_STARTS: _chunk_starts(in_rest, chunk),
        layout.PAIR_STARTS: _chunk_starts((in_rest + 1) // 2, chunk),
        layout.SAMPLED_STARTS: _chunk_starts(encoded.sampled, chunk),
        layout.FIRST_CODES: encoded.first_code,
        layout.FIRST_GAPS: encoded.first_gap,
        layout.REST_CODES: encoded.rest_code,
        layout.REST_GAPS: encoded.rest_gap,
        layout.SAMPLED_CODES: encoded.sampled_code,
        layout.SAMPLED_DRAWS: encoded.sampled_draws,
        layout.GRID: spec.grid[: encoded.levels],
    }


def _optional_arrays(targets: SparseTargets, n: int, spec: TargetSpec) -> dict[str, npt.NDArray[Any]]:
    """Entropy and log-normalisers of n tokens, NaN if no row of the unit has a target."""
    entropy, log_normalizers = targets.entropy, targets.log_normalizers
    if entropy is None:
        entropy = np.full(n, np.nan, np.float32)
    if log_normalizers is None:
        log_normalizers = np.full((n, len(spec.temperatures)), np.nan, np.float32)
    return {layout.ENTROPY: entropy, layout.LOG_NORMALIZERS: log_normalizers}


def _starts(lengths: Sequence[int]) -> npt.NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.asarray(lengths, np.int64))])


def _chunk_starts(counts: npt.NDArray[np.int64], chunk: int) -> npt.NDArray[np.int64]:
    """Number of entries before each chunk of tokens, and of all entries, int64 [chunks + 1]."""
    before = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    edges = np.minimum(np.arange(max(1, -(-len(counts) // chunk)) + 1) * chunk, len(counts))
    return np.asarray(before[edges])
